// BullMQ (tried with 6.7 on ioredis 6): addBulk of 500 jobs a call; one worker, concurrency 100.
// KEEP=yes keeps completed jobs, as BullMQ does by default and taskflow does with results on;
// KEEP=no removes them, which is its fastest setting. From the first start to the last
// "completed", which comes after the end was stored.
const { Queue, Worker } = require("bullmq");
const { writeSync } = require("node:fs");

const [part, url, number] = process.argv.slice(2);
const count = Number(number);
const { hostname, port } = new URL(url);
const connection = { host: hostname, port: Number(port), maxRetriesPerRequest: null };
const removeOnComplete = process.env.KEEP === "no";

async function store() {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const began = performance.now();
  for (let start = 0; start < count; start += 500) {
    const size = Math.min(500, count - start);
    await queue.addBulk(
      Array.from({ length: size }, () => ({ name: "noop", data: {}, opts: { removeOnComplete } })),
    );
  }
  const seconds = (performance.now() - began) / 1000;
  await queue.close();
  return { seconds };
}

async function work() {
  let first = 0;
  let done = 0;
  const queue = new Queue("bench", { connection });
  const worker = new Worker(
    "bench",
    async () => {
      first ||= performance.now();
      return null;
    },
    { connection, concurrency: 100, autorun: false },
  );
  const seconds = await new Promise((resolve, reject) => {
    worker.on("completed", () => {
      if (++done === count) resolve((performance.now() - first) / 1000);
    });
    worker.on("failed", (job, error) => reject(error));
    worker.on("error", reject);
    worker.run().catch(reject);
  });
  const left = await queue.getJobCounts("wait", "active", "failed", "delayed");
  if (Object.values(left).some((many) => many > 0)) throw new Error(JSON.stringify(left));
  return { seconds, since: "first start" };
}

(part === "store" ? store() : work()).then(
  (found) => {
    writeSync(1, JSON.stringify(found) + "\n");
    process.exit(0);
  },
  (error) => {
    writeSync(2, String(error.stack) + "\n");
    process.exit(1);
  },
);
