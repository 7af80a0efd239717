import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setInterval } from 'node:timers';

/** A proxy before several servers: connections go to each in turn, as long as it says that it is ready. */
export interface ReplicaProxy extends AsyncDisposable {
  readonly url: string;
  /** Addresses of the servers (HTTP), which may change. */
  readonly servers: Set<string>;
  /** How many connections each server got. */
  readonly counts: Map<string, number>;
}

const checkEveryMs = 100;

export async function openReplicaProxy(): Promise<ReplicaProxy> {
  const servers = new Set<string>();
  const ready = new Set<string>();
  const counts = new Map<string, number>();
  const open = new Set<Socket>();
  let turn = 0;

  async function check(): Promise<void> {
    await Promise.all(
      [...servers].map(async (server) => {
        const isReady = await fetch(`${server}/health/ready`, { headers: { connection: 'close' } }).then(
          (answer) => answer.ok,
          () => false,
        );
        if (isReady) ready.add(server);
        else ready.delete(server);
      }),
    );
    for (const server of ready) if (!servers.has(server)) ready.delete(server);
  }
  const checking = setInterval(() => void check(), checkEveryMs);

  const listener = createServer((client) => {
    open.add(client);
    client.on('close', () => open.delete(client));
    client.on('error', () => {});
    const chosen = [...ready];
    if (chosen.length === 0) return client.destroy();
    const server = chosen[turn++ % chosen.length];
    counts.set(server, (counts.get(server) ?? 0) + 1);
    const { hostname, port } = new URL(server);
    const upstream = connect(Number(port), hostname);
    upstream.on('error', () => client.destroy());
    upstream.on('close', () => client.destroy());
    client.on('close', () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    servers,
    counts,
    async [Symbol.asyncDispose]() {
      clearInterval(checking);
      for (const client of open) client.destroy();
      listener.close();
    },
  };
}
