import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Channel, ChannelListener } from './job-events.ts';

/** After this pause in which nothing was heard, messages may have been lost: a connection can be cut without a word. */
const floorMs = 2000;
const reconnectMs = 250;
/** A message of PostgreSQL is shorter than 8,000 bytes. */
const maxBytes = 7900;

/**
 * Messages by LISTEN and NOTIFY, https://www.postgresql.org/docs/current/sql-notify.html. A connection of its own listens, and is
 * replaced when it ends; not through a pooler of transactions, which does not deliver them.
 *
 * @param pool by whose connections it is said
 */
export function openPostgresChannel(
  config: pg.ClientConfig,
  pool: pg.Pool,
  name: string,
  listener: ChannelListener,
): Channel {
  const self = randomBytes(6).toString('hex');
  const closing = new AbortController();
  let waiting = new Set<string>();
  let saying: Promise<void> | undefined;
  let client: pg.Client | undefined;

  function hear(payload: string): void {
    const [from, ...messages] = payload.split('\n');
    if (from !== self) for (const message of messages) listener.heard(message);
  }

  async function listenOnce(): Promise<void> {
    const ended = Promise.withResolvers<void>();
    client = new pg.Client(config);
    client.on('notification', ({ payload }) => hear(payload ?? ''));
    client.on('error', () => ended.resolve());
    client.on('end', () => ended.resolve());
    try {
      await client.connect();
      await client.query(`LISTEN ${pg.escapeIdentifier(name)}`);
      listener.missed();
      await ended.promise;
    } finally {
      await client.end().catch(() => {});
    }
  }

  async function keepListening(): Promise<void> {
    while (!closing.signal.aborted) {
      await listenOnce().catch(() => {});
      await delay(reconnectMs, undefined, { signal: closing.signal, ref: false }).catch(() => {});
    }
  }

  async function sayAll(): Promise<void> {
    while (waiting.size > 0) {
      const messages = waiting;
      waiting = new Set();
      // Who misses it looks again by itself after a while.
      for (const payload of payloadsOf(self, messages))
        await pool.query('SELECT pg_notify($1, $2)', [name, payload]).catch(() => {});
    }
    saying = undefined;
  }

  const listening = keepListening();
  const floor = setInterval(() => listener.missed(), floorMs).unref();

  return {
    say(message) {
      if (closing.signal.aborted) return;
      waiting.add(message);
      saying ??= Promise.resolve().then(sayAll);
    },
    async [Symbol.asyncDispose]() {
      clearInterval(floor);
      await saying;
      closing.abort();
      await client?.end().catch(() => {});
      await listening;
    },
  };
}

/** Messages in as few payloads as they fit into: the sender, then a line for each. */
function* payloadsOf(self: string, messages: Iterable<string>): Generator<string> {
  let payload = self;
  for (const message of messages) {
    if (payload.length + 1 + message.length > maxBytes) {
      yield payload;
      payload = self;
    }
    payload += `\n${message}`;
  }
  if (payload !== self) yield payload;
}
