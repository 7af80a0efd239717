/** A server in a process of its own, so that a test can measure its memory and kill it. Ends with its parent. */
import { flushCompileCache } from 'node:module';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import pino from 'pino';
import type { ServerOptions } from '../src/server/options.ts';
import { startServer } from '../src/server.ts';

const options = JSON.parse(process.argv[2]) as Omit<ServerOptions, 'logger'>;
const delay = monitorEventLoopDelay({ resolution: 5 });
const server = await startServer({ ...options, logger: pino({ level: process.env.TEST_LOG ?? 'silent' }) });
process.on('message', (message) => {
  if (message === 'watch') {
    delay.reset();
    delay.enable();
  } else if (message === 'delay') {
    // The monitor counts its own interval in.
    process.send?.({ p99Ms: delay.percentile(99) / 1e6, maxMs: delay.max / 1e6, resolutionMs: 5 });
  }
});
process.on('disconnect', () => process.exit(0));
process.send?.({ url: server.url, tlsUrl: server.tlsUrl });
setImmediate(flushCompileCache);
