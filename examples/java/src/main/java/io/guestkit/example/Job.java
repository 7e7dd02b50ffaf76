package io.guestkit.example;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Publishes an inspection job and prints its result as JSON.
 *
 * <pre>Job confluent|single-object|json IMAGE</pre>
 *
 * The framing is that of the job and of the result. GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL and
 * GUESTKIT_TOPIC_PREFIX say where; GUESTKIT_SCHEMAS where schemas/avro of this repository is.
 */
public final class Job {
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("Job confluent|single-object|json IMAGE");
            System.exit(2);
        }
        System.exit(run(arguments[0], arguments[1]));
    }

    private static <T> int run(String framingName, String image) throws Exception {
        String prefix = Framing.setting("GUESTKIT_TOPIC_PREFIX", "vm-operations");
        Map<String, Object> servers = Map.of(
                ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, Framing.setting("GUESTKIT_BOOTSTRAP_SERVERS", "127.0.0.1:9092"));
        @SuppressWarnings("unchecked")
        Framing<T> framing = (Framing<T>) Framing.named(framingName, prefix);
        ObjectNode job = inspectJob(image);
        String id = job.get("job_id").textValue();

        Map<String, Object> reading = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers.get(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG),
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), framing.deserializer());
                var producer = new KafkaProducer<>(servers, new StringSerializer(), framing.serializer())) {
            // What is committed from now on is read, without a group.
            Set<TopicPartition> partitions = consumer.partitionsFor(prefix + ".results").stream()
                    .map(partition -> new TopicPartition(partition.topic(), partition.partition()))
                    .collect(Collectors.toSet());
            consumer.assign(partitions);
            consumer.endOffsets(partitions).forEach(consumer::seek);

            var record = new ProducerRecord<>(prefix + ".jobs", id, framing.toRecord(job));
            record.headers().add("content-type", framing.contentType().getBytes(StandardCharsets.UTF_8));
            producer.send(record).get();

            Instant deadline = Instant.now().plus(PATIENCE);
            while (Instant.now().isBefore(deadline)) {
                for (var answer : consumer.poll(Duration.ofSeconds(1))) {
                    if (!id.equals(answer.key())) {
                        continue;
                    }
                    ObjectNode result = framing.fromRecord(answer.value());
                    System.out.println(result.retain("job_id", "status", "error", "data"));
                    return result.path("status").asText().equals("completed") ? 0 : 1;
                }
            }
        }
        System.err.println("no result of " + id + " within " + PATIENCE.toSeconds() + " s");
        return 1;
    }

    private static ObjectNode inspectJob(String image) {
        ObjectNode job = JSON.createObjectNode()
                .put("version", "1.0")
                .put("job_id", UUID.randomUUID().toString())
                .put("created_at", Instant.now().toString())
                .put("kind", "VMOperation")
                .put("operation", "guestkit.inspect");
        // With execution.idempotency_key all jobs of that key and payload are one piece of work.
        job.putObject("payload").put("type", "guestkit.inspect.v1").putObject("data").putObject("image").put("path", image);
        return job;
    }

    private Job() {}
}
