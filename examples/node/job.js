// Publishes an inspection job and prints its result as JSON.
//
//   node job.js confluent|single-object|json IMAGE
//
// The framing is that of the job and of the result. GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL
// and GUESTKIT_TOPIC_PREFIX say where.

import { SchemaRegistry } from "@kafkajs/confluent-schema-registry";
import avsc from "avsc";
import kafkajs from "kafkajs";
import lz4 from "lz4js";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;
// The fleet writes lz4, which kafkajs leaves to its user.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async ({ buffer }) => Buffer.from(lz4.compress(buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const env = process.env;
const servers = env.GUESTKIT_BOOTSTRAP_SERVERS ?? "127.0.0.1:9092";
const registryUrl = env.GUESTKIT_SCHEMA_REGISTRY_URL ?? "http://127.0.0.1:8081/apis/ccompat/v7";
const prefix = env.GUESTKIT_TOPIC_PREFIX ?? "vm-operations";
const [jobs, results] = [`${prefix}.jobs`, `${prefix}.results`];
const PATIENCE_MS = 60_000;

// In Avro the data of a result is JSON text.
const withData = (result) => ({ ...result, data: JSON.parse(result.data ?? "null") });

// What Avro calls timestamp-millis.
class Millis extends avsc.types.LogicalType {
  _fromValue(number) { return new Date(number); }
  _toValue(date) { return date.getTime(); }
}
const avroOptions = () => ({ logicalTypes: { "timestamp-millis": Millis } });

// The document as it is.
function json() {
  return {
    contentType: "application/json",
    encode: (job) => JSON.stringify({ ...job, payload: { ...job.payload, data: JSON.parse(job.payload.data) } }),
    decode: (value) => JSON.parse(value.toString()),
  };
}

// C3 01, the schema's fingerprint, the record: no registry.
function singleObject() {
  const schema = (file) => {
    const text = readFileSync(new URL(`../../schemas/avro/${file}`, import.meta.url), "utf8");
    const type = avsc.Type.forSchema(JSON.parse(text), avroOptions());
    // avsc has the canonical form, but not this fingerprint of it.
    const header = Buffer.concat([Buffer.from([0xc3, 0x01]), crc64Avro(JSON.stringify(type.schema()))]);
    return { type, header };
  };
  const job = schema("job_envelope.avsc");
  const result = schema("job_result.avsc");
  return {
    contentType: "application/avro",
    encode: (document) => Buffer.concat([job.header, job.type.toBuffer(document)]),
    decode: (value) => {
      if (!value.subarray(0, 10).equals(result.header)) throw new Error("another framing or schema");
      return withData(result.type.fromBuffer(value.subarray(10)));
    },
  };
}

// Avro specification, "Schema Fingerprints".
function crc64Avro(text) {
  const EMPTY = 0xc15d213aa4d7a795n;
  let fingerprint = EMPTY;
  for (const byte of Buffer.from(text)) {
    let row = (fingerprint ^ BigInt(byte)) & 0xffn;
    for (let bit = 0; bit < 8; bit++) row = (row >> 1n) ^ (row & 1n ? EMPTY : 0n);
    fingerprint = (fingerprint >> 8n) ^ row;
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(fingerprint);
  return bytes;
}

// 00, the registry's id of the schema, the record. `guestkit-jobs schemas register` put the schemas there.
async function confluent() {
  const registry = new SchemaRegistry({ host: registryUrl }, { AVRO: avroOptions() });
  const id = await registry.getLatestSchemaId(`${jobs}-value`);
  return {
    contentType: "application/avro",
    encode: (job) => registry.encode(id, job),
    decode: async (value) => withData(await registry.decode(value)),
  };
}

function inspectJob(image) {
  return {
    version: "1.0",
    job_id: randomUUID(),
    created_at: new Date(),
    kind: "VMOperation",
    operation: "guestkit.inspect",
    // With execution: { idempotency_key: … } all jobs of that key and payload are one piece of work.
    payload: { type: "guestkit.inspect.v1", data: JSON.stringify({ image: { path: image } }) },
  };
}

// Calls back for every result that is committed from now on. kafkajs reads in groups only: this one is
// new, and starts where the topic ends now.
async function readResults(kafka, groupId, onRecord) {
  const admin = kafka.admin();
  await admin.connect();
  const ends = await admin.fetchTopicOffsets(results);
  const consumer = kafka.consumer({ groupId });
  await consumer.connect();
  await consumer.subscribe({ topic: results });
  const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve));
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => onRecord(message) });
  await joined;
  for (const { partition, high } of ends) consumer.seek({ topic: results, partition, offset: high });
  return async () => {
    await consumer.disconnect();
    await admin.deleteGroups([groupId]);
    await admin.disconnect();
  };
}

const framings = { confluent, "single-object": singleObject, json };
const [, , name, image] = process.argv;
if (!image || !Object.hasOwn(framings, name)) {
  console.error("node job.js confluent|single-object|json IMAGE");
  process.exit(2);
}
const framing = await framings[name]();
const kafka = new Kafka({ clientId: "example", brokers: servers.split(","), logLevel: logLevel.ERROR });
const job = inspectJob(image);
let answer;
const answered = new Promise((resolve) => { answer = resolve; });
const close = await readResults(kafka, `example-${job.job_id}`, (message) => {
  if (message.key?.toString() === job.job_id) answer(message.value);
});

const producer = kafka.producer({ idempotent: true });
await producer.connect();
const record = { key: job.job_id, value: await framing.encode(job), headers: { "content-type": framing.contentType } };
await producer.send({ topic: jobs, acks: -1, messages: [record] });
await producer.disconnect();

const value = await Promise.race([answered, sleep(PATIENCE_MS, undefined, { ref: false })]);
await close();
if (!value) {
  console.error(`no result of ${job.job_id} within ${PATIENCE_MS / 1000} s`);
  process.exit(1);
}
const { job_id, status, error, data } = await framing.decode(value);
console.log(JSON.stringify({ job_id, status, error, data }));
process.exitCode = status === "completed" ? 0 : 1;
