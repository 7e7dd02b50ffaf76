// Publishes an inspection job and prints its result as JSON.
//
//	go run . confluent|single-object|json IMAGE
//
// The framing is that of the job and of the result. GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL
// and GUESTKIT_TOPIC_PREFIX say where; GUESTKIT_SCHEMAS where schemas/avro of this repository is.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

const patience = 60 * time.Second

// A framing turns a job into the value of a record, and the value of a record into a result.
type framing struct {
	contentType string
	encode      func(job map[string]any) ([]byte, error)
	decode      func(value []byte) (map[string]any, error)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

var (
	prefix  = setting("GUESTKIT_TOPIC_PREFIX", "vm-operations")
	jobs    = prefix + ".jobs"
	results = prefix + ".results"
)

// jsonText is the document as it is.
func jsonText() (*framing, error) {
	return &framing{
		contentType: "application/json",
		encode: func(job map[string]any) ([]byte, error) {
			payload := job["payload"].(map[string]any)
			payload["data"] = json.RawMessage(payload["data"].(string))
			return json.Marshal(job)
		},
		decode: func(value []byte) (result map[string]any, err error) {
			return result, json.Unmarshal(value, &result)
		},
	}, nil
}

// singleObject is C3 01, the schema's fingerprint, the record: no registry.
func singleObject() (*framing, error) {
	read := func(file string) (*avro.Schema, error) {
		text, err := os.ReadFile(filepath.Join(setting("GUESTKIT_SCHEMAS", "../../schemas/avro"), file))
		if err != nil {
			return nil, err
		}
		return avro.Parse(string(text))
	}
	jobSchema, err := read("job_envelope.avsc")
	if err != nil {
		return nil, err
	}
	resultSchema, err := read("job_result.avsc")
	if err != nil {
		return nil, err
	}
	return &framing{
		contentType: "application/avro",
		encode: func(job map[string]any) ([]byte, error) {
			return jobSchema.AppendSingleObject(nil, job)
		},
		decode: func(value []byte) (map[string]any, error) {
			var result map[string]any
			if _, err := resultSchema.DecodeSingleObject(value, &result); err != nil {
				return nil, err
			}
			return withData(result)
		},
	}, nil
}

// confluent is 00, the registry's id of the schema, the record. The schemas come from the registry:
// `guestkit-jobs schemas register` put them there.
func confluent(ctx context.Context) (*framing, error) {
	registry, err := sr.NewClient(sr.URLs(setting("GUESTKIT_SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081/apis/ccompat/v7")))
	if err != nil {
		return nil, err
	}
	latest := func(topic string) (int, *avro.Schema, error) {
		found, err := registry.SchemaByVersion(ctx, topic+"-value", -1)
		if err != nil {
			return 0, nil, err
		}
		schema, err := avro.Parse(found.Schema.Schema)
		return found.ID, schema, err
	}
	jobID, jobSchema, err := latest(jobs)
	if err != nil {
		return nil, err
	}
	_, ours, err := latest(results)
	if err != nil {
		return nil, err
	}
	var header sr.ConfluentHeader
	return &framing{
		contentType: "application/avro",
		encode: func(job map[string]any) ([]byte, error) {
			value, err := header.AppendEncode(nil, jobID, nil)
			if err != nil {
				return nil, err
			}
			return jobSchema.AppendEncode(value, job)
		},
		decode: func(value []byte) (map[string]any, error) {
			id, datum, err := header.DecodeID(value)
			if err != nil {
				return nil, err
			}
			// The worker may write another version of the schema than the latest one.
			text, err := registry.SchemaByID(ctx, id)
			if err != nil {
				return nil, err
			}
			theirs, err := avro.Parse(text.Schema)
			if err != nil {
				return nil, err
			}
			resolved, err := avro.Resolve(theirs, ours)
			if err != nil {
				return nil, err
			}
			var result map[string]any
			if _, err := resolved.Decode(datum, &result); err != nil {
				return nil, err
			}
			return withData(result)
		},
	}, nil
}

// withData parses the data of a result, which is JSON text in Avro.
func withData(result map[string]any) (map[string]any, error) {
	text, ok := result["data"].(string)
	if !ok {
		return result, nil
	}
	var data any
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		return nil, err
	}
	result["data"] = data
	return result, nil
}

func inspectJob(image string) (map[string]any, error) {
	data, err := json.Marshal(map[string]any{"image": map[string]any{"path": image}})
	return map[string]any{
		"version":    "1.0",
		"job_id":     rand.Text(),
		"created_at": time.Now().UTC(),
		"kind":       "VMOperation",
		"operation":  "guestkit.inspect",
		// With "execution": {"idempotency_key": …} all jobs of that key and payload are one piece of work.
		"payload": map[string]any{"type": "guestkit.inspect.v1", "data": string(data)},
	}, err
}

func run(name, image string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var framed *framing
	var err error
	switch name {
	case "confluent":
		framed, err = confluent(ctx)
	case "single-object":
		framed, err = singleObject()
	case "json":
		framed, err = jsonText()
	default:
		return fmt.Errorf("%q is no framing", name)
	}
	if err != nil {
		return err
	}
	servers := kgo.SeedBrokers(setting("GUESTKIT_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
	producer, err := kgo.NewClient(servers)
	if err != nil {
		return err
	}
	defer producer.Close()

	// What is committed from now on is read, without a group.
	ends, err := kadm.NewClient(producer).ListEndOffsets(ctx, results)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	reader, err := kgo.NewClient(servers,
		kgo.ConsumePartitions(ends.KOffsets()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer reader.Close()

	job, err := inspectJob(image)
	if err != nil {
		return err
	}
	id := job["job_id"].(string)
	value, err := framed.encode(job)
	if err != nil {
		return err
	}
	record := &kgo.Record{Topic: jobs, Key: []byte(id), Value: value,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(framed.contentType)}}}
	if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	for {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("no result of %s: %w", id, err)
		}
		for _, record := range fetches.Records() {
			if string(record.Key) != id {
				continue
			}
			result, err := framed.decode(record.Value)
			if err != nil {
				return err
			}
			shown, err := json.Marshal(map[string]any{"job_id": result["job_id"], "status": result["status"],
				"error": result["error"], "data": result["data"]})
			if err != nil {
				return err
			}
			fmt.Println(string(shown))
			if result["status"] != "completed" {
				return errors.New("the job did not complete")
			}
			return nil
		}
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "job confluent|single-object|json IMAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
