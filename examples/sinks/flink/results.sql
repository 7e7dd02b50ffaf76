-- Results of guestkit in Flink SQL 2.2, with flink-sql-avro-confluent-registry and flink-sql-connector-kafka.
--
-- Columns are fields of schemas/avro/job_result.avsc by name; those that are not wanted may be left out, as
-- `extensions` is here. Times are UTC. A nullable record is a nullable ROW. Test `status`, not which record is there.
-- The query ends at what is there when it starts; without scan.bounded.mode it goes on.
-- {kafka}, {registry} and {prefix} stand for HOST:PORT, the root of Confluent's API and the prefix of the topics.

CREATE TABLE guestkit_results (
  job_id            STRING NOT NULL,
  status            STRING NOT NULL,
  operation         STRING,
  completed_at      TIMESTAMP(3),
  failed_at         TIMESTAMP(3),
  worker_id         STRING,
  duplicate_of      STRING,
  execution_summary ROW<started_at TIMESTAMP(3), duration DOUBLE, attempt INT NOT NULL, idempotency_key STRING>,
  metrics           ROW<disk_read_bytes BIGINT, disk_write_bytes BIGINT, peak_memory BIGINT, cpu_seconds DOUBLE>,
  error             ROW<code STRING NOT NULL, message STRING NOT NULL, phase STRING, recoverable BOOLEAN NOT NULL>,
  data              STRING
) WITH (
  'connector' = 'kafka',
  'topic' = '{prefix}.results',
  'properties.bootstrap.servers' = '{kafka}',
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = '{registry}'
);

SELECT
  job_id,
  status,
  operation,
  COALESCE(completed_at, failed_at) AS ended_at,
  execution_summary.duration        AS duration,
  error.code                        AS error_code,
  JSON_VALUE(data, '$.os[0].pretty_name') AS os
FROM guestkit_results;
