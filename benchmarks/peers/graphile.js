// graphile-worker (tried with 0.17): addJobs of 500 jobs a call; one worker with the settings of
// its own performance test: local queue of 500, completions batched without delay, 24 jobs at a
// time there and CONCURRENCY here. It deletes completed jobs and keeps no results. From the first
// start to the last "job:complete", which comes after the end was stored.
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { EventEmitter } = require("node:events");
const { writeSync } = require("node:fs");

const [part, connectionString, number] = process.argv.slice(2);
const count = Number(number);
const concurrentJobs = Number(process.env.CONCURRENCY ?? "100");
const logger = new Logger(() => () => {});

async function store() {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  const began = performance.now();
  for (let start = 0; start < count; start += 500) {
    const size = Math.min(500, count - start);
    await utils.addJobs(Array.from({ length: size }, () => ({ identifier: "noop", payload: {} })));
  }
  const seconds = (performance.now() - began) / 1000;
  await utils.release();
  return { seconds };
}

async function work() {
  let first = 0;
  let done = 0;
  const events = new EventEmitter();
  const ended = new Promise((resolve, reject) => {
    events.on("job:complete", ({ error }) => {
      if (error) reject(error);
      if (++done === count) resolve((performance.now() - first) / 1000);
    });
  });
  const runner = await run({
    taskList: {
      noop: async () => {
        first ||= performance.now();
      },
    },
    events,
    preset: {
      worker: {
        connectionString,
        logger,
        concurrentJobs,
        maxPoolSize: concurrentJobs + 2,
        localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  const seconds = await ended;
  await runner.stop();
  const utils = await makeWorkerUtils({ connectionString, logger });
  const left = await utils.withPgClient((client) =>
    client.query("SELECT count(*)::int AS many FROM graphile_worker.jobs"),
  );
  if (left.rows[0].many) throw new Error(`${left.rows[0].many} jobs are left`);
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
