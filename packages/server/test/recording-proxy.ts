import { createServer, type IncomingMessage, request as requestOf } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request that went through the proxy, with all bytes of its body that came. */
export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface RecordingProxy extends AsyncDisposable {
  readonly url: string;
  readonly requests: RecordedRequest[];
  /** All that was sent: addresses, headers and bodies. */
  sent(): Buffer;
}

/**
 * A proxy in front of a server that keeps what clients send. `cutAfter` gives, for a request, the bytes of its body after which both
 * connections break; undefined lets it through. What `refuses` holds of is answered with 404.
 */
export async function startRecordingProxy(
  target: string,
  cutAfter: (request: IncomingMessage) => number | undefined = () => undefined,
  refuses: (path: string) => boolean = () => false,
): Promise<RecordingProxy> {
  const requests: RecordedRequest[] = [];
  const server = createServer((incoming, answer) => {
    const { method = 'GET', url: path = '/', headers } = incoming;
    if (refuses(path)) return void answer.writeHead(404).end();
    const cut = cutAfter(incoming);
    const parts: Buffer[] = [];
    let seen = 0;
    const record = () => requests.push({ method, path, headers, body: Buffer.concat(parts) });
    const outgoing = requestOf(new URL(path, target), { method, headers }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(answer);
    });
    outgoing.on('error', () => answer.destroy());
    answer.on('close', () => outgoing.destroy());
    incoming.on('data', (chunk: Buffer) => {
      parts.push(chunk);
      seen += chunk.length;
      outgoing.write(chunk);
      if (cut === undefined || seen < cut) return;
      record();
      incoming.removeAllListeners('end');
      // What was written has to be on its way before the connection breaks.
      setImmediate(() => {
        incoming.socket.destroy();
        outgoing.destroy();
      });
    });
    incoming.on('end', () => {
      record();
      outgoing.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    sent: () =>
      Buffer.concat(
        requests.flatMap(({ path, headers, body }) => [Buffer.from(path + JSON.stringify(headers)), body]),
      ),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
