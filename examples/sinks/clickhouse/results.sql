-- Results of guestkit in ClickHouse: a table that Kafka is read by, a table that is kept, a view that moves rows.
--
-- The Kafka table reads committed records only (librdkafka's default). ClickHouse reads a record again after a
-- crash: ReplacingMergeTree keeps one row for each job id, and a query that counts says FINAL.
--
-- Columns are fields of schemas/avro/job_result.avsc by name; those that are not wanted may be left out. A tuple must
-- have every field of its record: when a new version of the schema adds one there, this table needs it too before
-- the workers are upgraded. Where null is written, a tuple has the defaults: test status.
-- {kafka}, {registry} and {prefix} stand for HOST:PORT, the root of Confluent's API and the prefix of the topics.

CREATE TABLE guestkit_results_queue
(
    job_id            String,
    status            String,
    operation         Nullable(String),
    completed_at      Nullable(DateTime64(3, 'UTC')),
    failed_at         Nullable(DateTime64(3, 'UTC')),
    worker_id         Nullable(String),
    duplicate_of      Nullable(String),
    execution_summary Tuple(started_at Nullable(DateTime64(3, 'UTC')), duration Nullable(Float64), attempt Int32,
                            idempotency_key Nullable(String), extensions Map(String, String)),
    error             Tuple(code String, message String, phase Nullable(String), details Map(String, String),
                            recoverable Bool, retry_recommended Bool, extensions Map(String, String)),
    data              Nullable(String)
)
ENGINE = Kafka
SETTINGS kafka_broker_list = '{kafka}',
         kafka_topic_list = '{prefix}.results',
         kafka_group_name = '{prefix}-clickhouse',
         kafka_format = 'AvroConfluent',
         format_avro_schema_registry_url = '{registry}';

CREATE TABLE guestkit_results
(
    job_id          String,
    status          LowCardinality(String),
    operation       LowCardinality(Nullable(String)),
    ended_at        DateTime64(3, 'UTC'),
    worker_id       Nullable(String),
    duplicate_of    Nullable(String),
    idempotency_key Nullable(String),
    started_at      Nullable(DateTime64(3, 'UTC')),
    duration        Nullable(Float64),
    error_code      LowCardinality(String),
    error_message   String,
    os              LowCardinality(String),
    packages        UInt32,
    data            Nullable(String) CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ended_at)
ORDER BY job_id;

CREATE MATERIALIZED VIEW guestkit_results_move TO guestkit_results AS
SELECT
    job_id,
    status,
    operation,
    coalesce(completed_at, failed_at, toDateTime64(0, 3, 'UTC')) AS ended_at,
    worker_id,
    duplicate_of,
    execution_summary.idempotency_key AS idempotency_key,
    execution_summary.started_at      AS started_at,
    execution_summary.duration        AS duration,
    error.code                        AS error_code,
    error.message                     AS error_message,
    JSONExtractString(coalesce(data, '{}'), 'os', 1, 'pretty_name') AS os,
    JSONLength(coalesce(data, '{}'), 'packages')                    AS packages,
    data
FROM guestkit_results_queue;
