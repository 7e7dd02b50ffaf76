package io.guestkit.example;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;

/** How jobs and results are written: {@code T} is what Kafka's client sees. */
interface Framing<T> {
    ObjectMapper JSON = new ObjectMapper();

    String contentType();

    Serializer<T> serializer();

    Deserializer<T> deserializer();

    T toRecord(ObjectNode job) throws IOException;

    ObjectNode fromRecord(T result) throws IOException;

    static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    static Framing<?> named(String name, String prefix) throws IOException, InterruptedException {
        return switch (name) {
            case "json" -> new Json();
            case "single-object" -> new SingleObject();
            case "confluent" -> new Confluent(prefix);
            default -> throw new IllegalArgumentException(name + " is no framing");
        };
    }

    /** The document as it is. */
    final class Json implements Framing<byte[]> {
        @Override
        public String contentType() {
            return "application/json";
        }

        @Override
        public Serializer<byte[]> serializer() {
            return new ByteArraySerializer();
        }

        @Override
        public Deserializer<byte[]> deserializer() {
            return new ByteArrayDeserializer();
        }

        @Override
        public byte[] toRecord(ObjectNode job) throws IOException {
            return JSON.writeValueAsBytes(job);
        }

        @Override
        public ObjectNode fromRecord(byte[] result) throws IOException {
            return (ObjectNode) JSON.readTree(result);
        }
    }

    /** {@code C3 01}, the schema's fingerprint, the record: no registry. */
    final class SingleObject implements Framing<byte[]> {
        private final Schema job = schema("job_envelope.avsc");
        private final BinaryMessageEncoder<GenericRecord> encoder = new BinaryMessageEncoder<>(GenericData.get(), job);
        private final BinaryMessageDecoder<GenericRecord> decoder =
                new BinaryMessageDecoder<>(GenericData.get(), schema("job_result.avsc"));

        SingleObject() throws IOException {}

        private static Schema schema(String file) throws IOException {
            return new Schema.Parser().parse(Path.of(setting("GUESTKIT_SCHEMAS", "../../schemas/avro"), file).toFile());
        }

        @Override
        public String contentType() {
            return "application/avro";
        }

        @Override
        public Serializer<byte[]> serializer() {
            return new ByteArraySerializer();
        }

        @Override
        public Deserializer<byte[]> deserializer() {
            return new ByteArrayDeserializer();
        }

        @Override
        public byte[] toRecord(ObjectNode document) throws IOException {
            ByteBuffer bytes = encoder.encode(Avro.job(job, document));
            byte[] value = new byte[bytes.remaining()];
            bytes.get(value);
            return value;
        }

        @Override
        public ObjectNode fromRecord(byte[] result) throws IOException {
            return Avro.result(decoder.decode(result));
        }
    }

    /**
     * {@code 00}, the registry's id of the schema, the record. {@code guestkit-jobs schemas register} put the schemas
     * there.
     */
    final class Confluent implements Framing<GenericRecord> {
        private final String url = setting("GUESTKIT_SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081/apis/ccompat/v7");
        private final Schema job;

        Confluent(String prefix) throws IOException, InterruptedException {
            URI latest = URI.create(url + "/subjects/" + prefix + ".jobs-value/versions/latest");
            HttpResponse<String> answer = HttpClient.newHttpClient()
                    .send(HttpRequest.newBuilder(latest).build(), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IOException(latest + ": status " + answer.statusCode());
            }
            job = new Schema.Parser().parse(JSON.readTree(answer.body()).get("schema").textValue());
        }

        /** Unless told otherwise Apicurio's serdes write another id, in eight bytes or in a header. */
        private Map<String, Object> settings() {
            return Map.of(
                    "apicurio.registry.url", url.replace("/apis/ccompat/v7", "/apis/registry/v2"),
                    "apicurio.registry.as-confluent", true,
                    "apicurio.registry.use-id", "contentId",
                    "apicurio.registry.headers.enabled", false,
                    "apicurio.registry.artifact-resolver-strategy",
                            "io.apicurio.registry.serde.strategy.TopicIdStrategy",
                    "apicurio.registry.auto-register", false,
                    "apicurio.registry.find-latest", true);
        }

        @Override
        public String contentType() {
            return "application/avro";
        }

        @Override
        public Serializer<GenericRecord> serializer() {
            Serializer<GenericRecord> serializer = new AvroKafkaSerializer<>();
            serializer.configure(settings(), false);
            return serializer;
        }

        @Override
        public Deserializer<GenericRecord> deserializer() {
            Deserializer<GenericRecord> deserializer = new AvroKafkaDeserializer<>();
            deserializer.configure(settings(), false);
            return deserializer;
        }

        @Override
        public GenericRecord toRecord(ObjectNode document) throws IOException {
            return Avro.job(job, document);
        }

        @Override
        public ObjectNode fromRecord(GenericRecord result) throws IOException {
            return Avro.result(result);
        }
    }

    /** Between the JSON form of a document and its Avro form. */
    final class Avro {
        static GenericRecord job(Schema schema, ObjectNode document) {
            var payload = document.get("payload");
            try {
                return new GenericRecordBuilder(schema)
                        .set("version", document.get("version").textValue())
                        .set("job_id", document.get("job_id").textValue())
                        .set("created_at", Instant.parse(document.get("created_at").textValue()).toEpochMilli())
                        .set("kind", document.get("kind").textValue())
                        .set("operation", document.get("operation").textValue())
                        .set("payload", new GenericRecordBuilder(schema.getField("payload").schema())
                                .set("type", payload.get("type").textValue())
                                // In Avro the data is JSON text.
                                .set("data", JSON.writeValueAsString(payload.get("data")))
                                .build())
                        .build();
            } catch (JsonProcessingException impossible) {
                throw new UncheckedIOException(impossible);
            }
        }

        static ObjectNode result(GenericRecord record) throws IOException {
            // A record prints itself as JSON.
            ObjectNode result = (ObjectNode) JSON.readTree(record.toString());
            if (result.hasNonNull("data")) {
                result.set("data", JSON.readTree(result.get("data").textValue()));
            }
            return result;
        }

        private Avro() {}
    }
}
