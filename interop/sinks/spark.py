"""Runs the columns of examples/sinks/spark/results.py over the results of a fleet.

    spark.py LIBRARIES RESULTS

LIBRARIES is a folder with Spark's connectors, RESULTS how many rows there must be. Reads once what the recipe
reads as a stream.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/sinks/spark"))

import results as recipe  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402


def main():
    libraries, count = Path(sys.argv[1]), int(sys.argv[2])
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.jars", ",".join(str(jar) for jar in libraries.glob("*.jar")))
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    records = (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", recipe.SERVERS)
        .option("kafka.isolation.level", "read_committed")
        .option("subscribe", f"{recipe.PREFIX}.results")
        .option("startingOffsets", "earliest")
        .load()
    )
    rows = [row.asDict() for row in recipe.results(records).collect()]
    for row in rows:
        print(json.dumps(row, default=str))
    spark.stop()
    if len(rows) != count:
        sys.exit(f"{len(rows)} rows, {count} results")
    inspected = [row for row in rows if (row["os"] or "").startswith("Debian") and row["duration"] is not None]
    failed = [row for row in rows if row["error_code"] == "IMAGE_NOT_FOUND" and row["status"] == "failed"]
    if not inspected or not failed or any(row["ended_at"] is None for row in rows):
        sys.exit("a column is wrong")


if __name__ == "__main__":
    main()
