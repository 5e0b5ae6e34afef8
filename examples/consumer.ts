/**
 * Follows one project: prints what happens to it, and every vector that arrives, from the beginning of the log on.
 *
 *     cd examples && npm install && npm run build
 *     KAFKA=127.0.0.1:9092 node consumer.js "My library"
 *
 * The same as consumer.py. Ends with Ctrl-C, or, given a number of seconds as second argument, after so long a silence.
 */
import { SchemaRegistry } from "@kafkajs/confluent-schema-registry";
import { Kafka, logLevel, type IHeaders } from "kafkajs";

type Event = Record<string, any>;

const url = process.env.PAPERLOG_URL ?? "http://127.0.0.1:8800";
const [name, quietSeconds = "Infinity"] = process.argv.slice(2);
const registry = new SchemaRegistry({ host: url });
const kafka = new Kafka({ clientId: "example", brokers: [process.env.KAFKA ?? ""], logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: process.env.GROUP ?? "example-consumer-ts" }); // read_committed by default

async function projectIdOf(project: string): Promise<string> {
  const answer = await fetch(`${url}/api/projects`);
  const { projects } = (await answer.json()) as { projects: { project_id: string; name: string }[] };
  const found = projects.find((one) => one.name.toLowerCase() === project.toLowerCase());
  if (!found) throw new Error(`There is no project “${project}”.`);
  return found.project_id;
}

function describe(kind: string, event: Event): string {
  switch (kind) {
    case "DocumentParsed":
      return `'${event.title}', ${event.concepts.length} concepts`;
    case "DocumentRejected":
      return `${event.item}: ${event.reason}`;
    case "ChunkEmbedded": {
      const vector: Buffer = event.vector; // float32, little-endian
      const first = [0, 4, 8].map((at) => vector.readFloatLE(at).toFixed(3));
      return `'${event.text.slice(0, 40)}' → ${event.dims} dimensions [${first.join(", ")}, …]`;
    }
    case "ImportCompleted":
      return `${event.document_count} documents, ${event.stored_count} chunks stored`;
    default:
      return "";
  }
}

const header = (headers: IHeaders | undefined, key: string): string => headers?.[key]?.toString() ?? "";

async function main(): Promise<void> {
  const projectId = await projectIdOf(name ?? "");
  const seen = new Set<string>();
  let cameAt = Infinity;

  await consumer.connect();
  await consumer.subscribe({ topics: ["imports", "embeddings"], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ topic, partition, message }) => {
      cameAt = Date.now();
      // Records of `embeddings` say in a header whose they are: strangers' vectors are not even decoded.
      const owner = header(message.headers, "paperlog_project");
      if (owner && owner !== projectId) return;
      const identity = `${header(message.headers, "ce_source")} ${header(message.headers, "ce_id")}`;
      if (seen.has(identity) || !message.value) return;
      seen.add(identity);
      const event: Event = await registry.decode(message.value);
      if (event.project_id !== projectId) return;
      const kind = header(message.headers, "ce_type").replace("paperlog.", "");
      console.log(`${topic}[${partition}]@${message.offset}`, kind, describe(kind, event));
    },
  });

  const stop = async (): Promise<void> => {
    clearInterval(watch);
    await consumer.disconnect();
  };
  const watch = setInterval(() => {
    if (Date.now() - cameAt > Number(quietSeconds) * 1000) void stop();
  }, 500);
  process.once("SIGINT", () => void stop());
}

main().catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
