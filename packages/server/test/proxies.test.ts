import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { collectBytes, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  findApache,
  findCaddy,
  findCurl,
  findHaproxy,
  findJava,
  findNginx,
  findPython,
} from '../../../test/programs.ts';
import {
  plainNginx,
  type RunningProxy,
  startApache,
  startCaddy,
  startHaproxy,
} from '../../../test/proxies.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { announce, announcementOf, createCleanup, openTestRegistry } from './registry-helpers.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * Predictions that take long, through the proxies that people have and from the clients that people use: none of them
 * gives up, neither for too few signs of life nor for too many.
 */

const run = promisify(execFile);
const hasProxies = [findNginx(), findCaddy(), findApache(), findHaproxy()].every(Boolean);
const curl = findCurl();
const python = findPython('requests');
const java = findJava();
// No proxy and no list of certificates from the surroundings.
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/proxy|CA_BUNDLE/i.test(name)),
);

/** All four interim answers are sent before the answer. */
const interimAfterMs = [200, 400, 600, 800];
const slowSeconds = 1.5;
const realSeconds = 78;

describe.skipIf(!hasProxies)('a prediction that takes long', { timeout: 180_000 }, () => {
  const cleanup = createCleanup();
  let folder: string;
  let file: string;
  let bytes: Buffer<ArrayBuffer>;
  let quick: RealServer;
  let real: RealServer;
  /** Addresses of predictions, by what is in between. */
  const addresses: Record<string, string> = {};
  const realAddresses: Record<string, string> = {};

  async function use(proxy: Promise<RunningProxy>): Promise<string> {
    const started = await proxy;
    cleanup.add(() => started[Symbol.asyncDispose]());
    return started.url;
  }

  async function openRegistry(serverUrl: string): Promise<string> {
    const registry = await openTestRegistry(cleanup);
    await registry.app.listen({ host: '127.0.0.1', port: 0 });
    const change = { task: 'slow', anatomy: 'any', serviceId: 'slow' };
    const answer = await announce(registry, await registry.key(), 'a', announcementOf(serverUrl, change));
    expect(answer.statusCode, answer.payload).toBe(200);
    return `http://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`;
  }

  beforeAll(async () => {
    folder = await temporaryFolder();
    const copyAfter = (seconds: number) => ({
      model: {
        runtime: 'command',
        command: ['/bin/sh', '-c', `sleep ${seconds}; cp "$1/volume.nii.gz" "$2/segmentation.nii.gz"`, 'sh'],
      },
      limits: { concurrency: 8 },
    });
    const apps = [
      await writeApp(folder, 'slow', copyAfter(slowSeconds)),
      await writeApp(folder, 'real', copyAfter(realSeconds)),
    ];
    [quick, real] = await Promise.all([
      startRealServer([apps[0]], { workers: 6, interimAfterMs }),
      // As it is in use: the timings are the built-in ones.
      startRealServer([apps[1]], { workers: 7 }),
    ]);
    const voxels = Uint8Array.from({ length: 5 * 4 * 3 }, (_, i) => Number(i % 3 === 0));
    const volume = {
      voxels,
      size: [5, 4, 3] as [number, number, number],
      components: 1,
      affine: [2, 0, 0, 7, 0, 3, 0, 8, 0, 0, 4, 9, 0, 0, 0, 1],
    };
    bytes = Buffer.from(await collectBytes(writeVolume(volume as never, 'nii.gz', nodePlatform)));
    file = join(folder, 'patient_001.nii.gz');
    await writeFile(file, bytes);

    const { url } = quick;
    const caddy = await use(startCaddy(url));
    const hosts: Record<string, string> = {
      nothing: url,
      'nginx with its defaults': await use(plainNginx(url)),
      'nginx that speaks HTTP/1.1': await use(plainNginx(url, 'proxy_http_version 1.1;')),
      Caddy: caddy,
      'Caddy that does not show itself': await use(
        startCaddy(
          url,
          '  header_up -X-Forwarded-For\n  header_up -X-Forwarded-Proto\n  header_up -X-Forwarded-Host\n  header_up -Via',
        ),
      ),
      Apache: await use(startApache(url)),
      'Apache that does not show itself': await use(startApache(url, 'ProxyAddHeaders Off')),
      HAProxy: await use(startHaproxy(url)),
      'a registry': await openRegistry(url),
      'a registry behind Caddy': await use(startCaddy(await openRegistry(url))),
      'a registry before Caddy': await openRegistry(caddy),
    };
    for (const [name, host] of Object.entries(hosts)) addresses[name] = `${host}/slow/any`;
    Object.assign(realAddresses, {
      Caddy: `${await use(startCaddy(real.url))}/real/any`,
      Apache: `${await use(startApache(real.url, 'ProxyPreserveHost On\nLimitRequestBody 0\nProxyTimeout 3600'))}/real/any`,
      nginx: `${await use(plainNginx(real.url, 'proxy_read_timeout 1h;'))}/real/any`,
      HAProxy: `${await use(startHaproxy(real.url, ' timeout server 1h\n timeout client 1h'))}/real/any`,
    });
  });
  afterAll(async () => {
    await cleanup.run();
    await quick?.[Symbol.asyncDispose]();
    await real?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** What is expected of each address: the status, and the whole segmentation. */
  const all = (of: Record<string, string>) =>
    Object.fromEntries(Object.keys(of).map((name) => [name, '200 whole']));
  /** Their Content-Length says to the clients whether an answer is whole. */
  const shown = (status: unknown, length: number) => `${status} ${length > 100 ? 'whole' : length}`;
  const each = async (of: Record<string, string>, ask: (address: string) => Promise<string>) =>
    Object.fromEntries(
      await Promise.all(
        Object.entries(of).map(async ([name, address]) => [
          name,
          await ask(address).catch((error: Error) => `${error.message} ${error.cause ?? ''}`),
        ]),
      ),
    );
  const askCurl = async (address: string) => {
    const args = ['-sS', '-o', '/dev/null', '-w', '%{http_code} %{size_download}'];
    const { stdout } = await run(curl!, [...args, '-F', `volume=@${file}`, address], { env });
    const [status, length] = stdout.split(' ');
    return shown(status, Number(length));
  };
  const askFetch = (headers: Record<string, string>) => async (address: string) => {
    const body = new FormData();
    body.set('volume', new Blob([bytes]), 'patient_001.nii.gz');
    const response = await fetch(address, { method: 'POST', body, headers });
    return shown(response.status, (await response.arrayBuffer()).byteLength);
  };

  /** Beside those that wait long, one client after the other: the machine has a few processors for them all. */
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = (test: () => Promise<void>) => () => {
    const mine = turn.then(test);
    turn = mine.catch(() => {});
    return mine;
  };

  describe.concurrent('through every proxy, and the registry', () => {
    it.skipIf(!curl)(`reaches curl after ${realSeconds} s, with the timings that are built in`, async () => {
      expect(await each(realAddresses, askCurl)).toEqual(all(realAddresses));
    });

    it('brings the events of a job as they happen', async () => {
      for (const address of Object.values(realAddresses)) {
        const base = new URL('/', address).href;
        const created = await fetch(`${base}api/services/real/predictions`, {
          method: 'POST',
          body: bytes,
          headers: { 'content-type': 'application/octet-stream' },
        });
        const { id } = await created.json();
        const events = await fetch(`${base}api/jobs/${id}/events`);
        const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader();
        let text = '';
        const reaches = async (state: RegExp) => {
          while (!state.test(text)) text += (await reader.read()).value ?? '';
        };
        await reaches(/"state":"(queued|running)"/);
        await fetch(`${base}api/jobs/${id}`, { method: 'DELETE' });
        await reaches(/"state":"canceled"/);
        await reader.cancel();
      }
    });

    it(`sends two interim answers in ${realSeconds} s directly, none through proxies`, async () => {
      const ask = (headers: readonly string[]) => interimAnswers(real.port, '/real/any', headers);
      const [direct, proxied, unknown] = await Promise.all([
        ask(['User-Agent: python-requests/2.32']),
        ask(['User-Agent: curl/8.0', 'X-Forwarded-For: 192.0.2.1']),
        ask(['User-Agent: my-lab-client/1.0']),
      ]);
      expect([direct, proxied, unknown]).toEqual([2, 0, 0]);
    });

    it.skipIf(!curl)(
      'reaches curl',
      inTurn(async () => {
        expect(await each(addresses, askCurl)).toEqual(all(addresses));
      }),
    );

    it(
      'reaches fetch of Node',
      inTurn(async () => {
        expect(await each(addresses, askFetch({}))).toEqual(all(addresses));
      }),
    );

    it(
      'reaches Node’s fetch with a custom user agent',
      inTurn(async () => {
        const answers = await Promise.all(
          ['my-lab-client/1.0', 'Mozilla/5.0 (lab script)'].map((name) =>
            each(addresses, askFetch({ 'user-agent': name })),
          ),
        );
        expect(answers).toEqual([all(addresses), all(addresses)]);
      }),
    );

    it.skipIf(!python)(
      'reaches requests',
      inTurn(async () => {
        const script = `
import json, sys, requests
from concurrent.futures import ThreadPoolExecutor
def ask(address):
    try:
        with open(sys.argv[1], "rb") as f:
            response = requests.post(address, files={"volume": f})
        return f"{response.status_code} {'whole' if len(response.content) > 100 else len(response.content)}"
    except Exception as error:
        return repr(error)
addresses = json.loads(sys.argv[2])
with ThreadPoolExecutor(len(addresses)) as pool:
    print(json.dumps(dict(zip(addresses, pool.map(ask, addresses.values())))))`;
        const { stdout } = await run(python!, ['-c', script, file, JSON.stringify(addresses)], { env });
        expect(JSON.parse(stdout)).toEqual(all(addresses));
      }),
    );

    it.skipIf(!java)(
      'reaches HttpClient and HttpURLConnection of Java',
      inTurn(async () => {
        const source = join(folder, 'Ask.java');
        await writeFile(source, javaClient);
        const list = Object.values(addresses);
        const { stdout } = await run('java', [source, file, ...list], { env });
        const answers = stdout.trim().split('\n').sort();
        const expected = list.flatMap((address) =>
          ['HttpClient', 'HttpURLConnection'].map((client) => `${client} ${address} 200 whole`),
        );
        expect(answers).toEqual(expected.sort());
      }),
    );
  });

  /** How many interim answers come before the answer. */
  async function interimAnswers(port: number, path: string, headers: readonly string[]): Promise<number> {
    const socket = connect(port, '127.0.0.1');
    const lines = [
      'Host: localhost',
      ...headers,
      'Content-Type: application/octet-stream',
      'Connection: close',
    ];
    socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\nContent-Length: ${bytes.length}\r\n\r\n`);
    socket.write(bytes);
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
    });
    await once(socket, 'close');
    expect(text).toContain('HTTP/1.1 200 OK');
    return text.split('HTTP/1.1 100 Continue\r\n').length - 1;
  }

  it.skipIf(process.platform !== 'linux')('is probed by TCP while idle', async () => {
    const socket = connect(quick.port, '127.0.0.1');
    await once(socket, 'connect');
    const { localPort } = socket;
    socket.write('POST /slow/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n');
    // Of the server's end: the kernel's list names the timer (02: keep-alive) and when it ends, in 1/100 s (proc(5)).
    const timer = async () => {
      const list = await readFile('/proc/net/tcp', 'utf8');
      const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, '0');
      return new RegExp(`:${hex(quick.port)} 0100007F:${hex(localPort!)} 01 \\S+ (\\d\\d):([0-9A-F]+)`).exec(
        list,
      );
    };
    await expect.poll(async () => (await timer())?.[1]).toBe('02');
    expect(Number.parseInt((await timer())![2], 16)).toBeLessThanOrEqual(3000);
    socket.destroy();
  });
});

const javaClient = `
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

public class Ask {
  static String shown(int length) { return " " + (length > 100 ? "whole" : length); }

  public static void main(String[] args) throws Exception {
    byte[] file = Files.readAllBytes(Path.of(args[0]));
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    ExecutorService pool = Executors.newCachedThreadPool();
    List<Future<String>> answers = new ArrayList<>();
    for (String address : Arrays.copyOfRange(args, 1, args.length)) {
      answers.add(pool.submit(() -> {
        HttpRequest request = HttpRequest.newBuilder(URI.create(address))
          .header("Content-Type", "application/octet-stream")
          .POST(HttpRequest.BodyPublishers.ofByteArray(file)).build();
        try {
          HttpResponse<byte[]> response = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
          return "HttpClient " + address + " " + response.statusCode() + shown(response.body().length);
        } catch (Exception error) { return "HttpClient " + address + " " + error; }
      }));
      answers.add(pool.submit(() -> {
        try {
          HttpURLConnection connection = (HttpURLConnection) new URL(address).openConnection();
          connection.setDoOutput(true);
          connection.setRequestMethod("POST");
          connection.setRequestProperty("Content-Type", "application/octet-stream");
          connection.getOutputStream().write(file);
          int length = connection.getInputStream().readAllBytes().length;
          return "HttpURLConnection " + address + " " + connection.getResponseCode() + shown(length);
        } catch (Exception error) { return "HttpURLConnection " + address + " " + error; }
      }));
    }
    for (Future<String> answer : answers) System.out.println(answer.get());
    pool.shutdown();
  }
}
`;
