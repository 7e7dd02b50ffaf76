-- Results of guestkit in ksqlDB. It takes the columns from the registry's latest version of the subject
-- <prefix>.results-value. Start the server with
--   ksql.streams.isolation.level=read_committed
--   ksql.schema.registry.url={registry}
-- {registry} and {prefix} stand for the root of Confluent's API and the prefix of the topics.

CREATE STREAM guestkit_results (
  job_id_key VARCHAR KEY
) WITH (
  KAFKA_TOPIC = '{prefix}.results',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'AVRO'
);

CREATE TABLE guestkit_results_by_status AS
  SELECT status, COUNT(*) AS jobs
  FROM guestkit_results
  GROUP BY status
  EMIT CHANGES;

SELECT job_id, operation, error->code, EXTRACTJSONFIELD(data, '$.os[0].pretty_name') AS os
FROM guestkit_results
EMIT CHANGES;
