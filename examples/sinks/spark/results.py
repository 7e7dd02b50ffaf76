"""Results of guestkit in Spark Structured Streaming, with spark-sql-kafka-0-10 and spark-avro.

    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0,org.apache.spark:spark-avro_2.13:4.0.0 results.py

Spark's from_avro knows no registry: the five bytes of Confluent's framing (ten of single-object encoding) are
cut off, and the schema is the file. It reads records of every version, because versions are compatible both
ways; fields that it does not have are missed only in its columns.
"""

import os
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import coalesce, col, expr, get_json_object

PREFIX = os.environ.get("GUESTKIT_TOPIC_PREFIX", "vm-operations")
SERVERS = os.environ.get("GUESTKIT_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
SCHEMA = Path(__file__).resolve().parents[3] / "schemas/avro/job_result.avsc"
FRAMING_BYTES = 5


def results(records):
    """Columns of the results in records of the results topic."""
    datum = expr(f"substring(value, {FRAMING_BYTES + 1})")
    result = records.select(from_avro(datum, SCHEMA.read_text(), {"mode": "FAILFAST"}).alias("result")).select("result.*")
    return result.select(
        "job_id",
        "status",
        "operation",
        coalesce("completed_at", "failed_at").alias("ended_at"),
        "worker_id",
        "duplicate_of",
        col("execution_summary.duration").alias("duration"),
        col("metrics.disk_read_bytes").alias("disk_read_bytes"),
        col("error.code").alias("error_code"),
        get_json_object("data", "$.os[0].pretty_name").alias("os"),
    )


def main():
    spark = SparkSession.builder.appName("guestkit-results").getOrCreate()
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", SERVERS)
        .option("kafka.isolation.level", "read_committed")
        .option("subscribe", f"{PREFIX}.results")
        .option("startingOffsets", "earliest")
        .load()
    )
    table = os.environ.get("GUESTKIT_TABLE", "guestkit_results")
    query = results(records).writeStream.format("parquet").option("path", table)
    query.option("checkpointLocation", f"{table}.checkpoint").start().awaitTermination()


if __name__ == "__main__":
    main()
