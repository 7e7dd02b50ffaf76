"""Runs examples/sinks/clickhouse/results.sql in ClickHouse's own engine (chdb) over the results of a fleet.

    clickhouse.py RESULTS

The engine in a Python process has everything but a Kafka consumer. So the statement for the Kafka table is
parsed, then replaced by a table with the same columns that takes the same bytes in the same format; the rest runs
as it is. Prints the rows as JSON lines; RESULTS is how many there must be.
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

from chdb.session import Session
from confluent_kafka import Consumer, TopicPartition

SERVERS = os.environ["GUESTKIT_BOOTSTRAP_SERVERS"]
REGISTRY = os.environ["GUESTKIT_SCHEMA_REGISTRY_URL"]
PREFIX = os.environ["GUESTKIT_TOPIC_PREFIX"]
RECIPE = Path(__file__).resolve().parents[2] / "examples/sinks/clickhouse/results.sql"
PATIENCE_SECONDS = 60
KAFKA_TABLE = re.compile(r"(CREATE TABLE \w+\s*\((?P<columns>.*?)\n\))\s*ENGINE = Kafka\s+SETTINGS (?P<settings>.*)", re.S)


def committed_values(topic, count):
    settings = {"bootstrap.servers": SERVERS, "group.id": "unused", "enable.auto.commit": False}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    values, deadline = [], time.monotonic() + PATIENCE_SECONDS
    while len(values) < count and time.monotonic() < deadline:
        record = consumer.poll(0.5)
        if record is not None and not record.error():
            values.append(record.value())
    consumer.close()
    return values


def main():
    count = int(sys.argv[1])
    recipe = RECIPE.read_text()
    for name, value in (("kafka", SERVERS), ("registry", REGISTRY), ("prefix", PREFIX)):
        recipe = recipe.replace("{%s}" % name, value)
    statements = [statement.strip() for statement in recipe.split(";\n") if statement.strip()]
    database = Session()
    # Of the first statement, what follows its comment.
    kafka = KAFKA_TABLE.search(statements[0])
    database.query(f"EXPLAIN AST {kafka[0]}")
    database.query(f"{kafka[1]} ENGINE = Null")
    for statement in statements[1:]:
        database.query(statement)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results"
        path.write_bytes(b"".join(committed_values(f"{PREFIX}.results", count)))
        columns = kafka["columns"].replace("'", "''")
        database.query(
            f"INSERT INTO guestkit_results_queue SELECT * FROM file('{path}', 'AvroConfluent', '{columns}') "
            f"SETTINGS format_avro_schema_registry_url = '{REGISTRY}'"
        )
    rows = str(database.query("SELECT * EXCEPT data FROM guestkit_results FINAL ORDER BY ended_at", "JSONEachRow"))
    print(rows, end="")
    if len(rows.splitlines()) != count:
        sys.exit(f"{len(rows.splitlines())} rows, {count} results")
    wrong = str(
        database.query(
            "SELECT count() FROM guestkit_results FINAL WHERE toYear(ended_at) < 2026 OR length(job_id) < 8 OR"
            " (status = 'failed' AND error_code = '') OR (operation = 'guestkit.inspect' AND status = 'completed'"
            " AND (os NOT LIKE 'Debian%' OR packages < 10 OR duration IS NULL))",
            "CSV",
        )
    ).strip()
    if wrong != "0":
        sys.exit(f"{wrong} rows are wrong")


if __name__ == "__main__":
    main()
