// Validates an AsyncAPI document with the parser of the AsyncAPI project, and every Avro schema it refers to.
//
//   node asyncapi.js FILE

import { AvroSchemaParser } from "@asyncapi/avro-schema-parser";
import { Parser, fromFile } from "@asyncapi/parser";

const avro = AvroSchemaParser();
const parser = new Parser();
parser.registerSchemaParser(avro);
const { document, diagnostics } = await fromFile(parser, process.argv[2]).parse();
const complaints = diagnostics.map(({ code, message, path, severity, range }) => {
  const weight = ["error", "warning", "information", "hint"][severity];
  return `${weight}: line ${range.start.line + 1}: ${path.join(".")}: ${message} (${code})`;
});

// The parser converts the Avro schemas of AsyncAPI 3 documents without looking whether they are valid.
let schemas = 0;
for (const message of document?.allMessages() ?? []) {
  if (!avro.getMimeTypes().includes(message.schemaFormat())) continue;
  const data = message.json("payload")["x-parser-original-payload"];
  const faults = data ? await avro.validate({ data, path: [message.id()] }) : [{ message: "no schema" }];
  complaints.push(...faults.map((fault) => `error: ${message.id()}: ${fault.message}`));
  schemas++;
}
complaints.forEach((complaint) => console.log(complaint));
if (!document || complaints.length > 0) process.exit(1);
const [channels, messages] = [document.allChannels().length, document.allMessages().length];
console.log(`${process.argv[2]}: ${channels} channels, ${messages} messages, ${schemas} Avro schemas`);
