import { createHash } from 'node:crypto';
import {
  announcementType,
  createRegistryClient,
  type Entry,
  type SignedAnnouncement,
  verifyAnnouncement,
} from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { base64url } from 'jose';
import { afterEach, describe, expect, it } from 'vitest';
import {
  announce,
  announcementOf,
  certificateOf,
  createCleanup,
  identityOf,
  idOf,
  openTestRegistry,
  payloadOf,
  putSigned,
  registryUrl,
} from './registry-helpers.ts';

const cleanup = createCleanup();
afterEach(() => cleanup.run());

/** Numbers that look random and are the same in every run. */
function createRandom(seed: number) {
  let at = seed;
  const next = (below: number) => {
    at = (Math.imul(at, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((at / 2 ** 32) * below);
  };
  return { next, pick: <T>(list: readonly T[]): T => list[next(list.length)] };
}
const random = createRandom(20_260_102);

type Made = { kind: string; id: string; text: string };

const announcement = announcementOf('https://server.example:9443', { version: '1.2.0', volumes: 1 });
const server = await identityOf('server');
const attacker = await identityOf('attacker');

/** A compact JWS with this header, signed by the key of `signer` all the same. */
async function signWith(signer: typeof server, payload: object, header: object): Promise<string> {
  const [head] = (await signer.sign(announcementType, payload)).split('.');
  const own = JSON.parse(Buffer.from(head, 'base64url').toString()) as object;
  const [, body, signature] = (await signer.sign(announcementType, payload)).split('.');
  return `${base64url.encode(JSON.stringify({ ...own, ...header }))}.${body}.${signature}`;
}

/** What an attacker can do with announcements: each is refused, by the registry and by a client. */
async function tamper(nowMs: number, count: number): Promise<Made[]> {
  const good = () => payloadOf(announcement, server, nowMs);
  const signed = (payload: object, by = server) => by.sign(announcementType, payload);
  const made: Made[] = [];
  const { id } = good();
  const add = (kind: string, text: string, at = id) => made.push({ kind, id: at, text });
  const shift = (seconds: number) => ({ iat: good().iat + seconds, exp: good().exp + seconds });
  const fields = Object.keys(good()) as (keyof SignedAnnouncement)[];
  for (let i = 0; made.length < count; i++) {
    const payload = good();
    const text = await signed(payload);
    const parts = text.split('.');
    // One character of one part is another one.
    const part = random.next(3);
    // Not the last one: some of its bits stand for nothing.
    const at = random.next(parts[part].length - 1);
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const other = random.pick([...alphabet].filter((letter) => letter !== parts[part][at]));
    add(
      'a changed character',
      parts.with(part, parts[part].slice(0, at) + other + parts[part].slice(at + 1)).join('.'),
    );
    add('cut short', text.slice(0, 1 + random.next(text.length - 1)));
    // A field is changed after signing: the signature is of another text.
    const field = random.pick(fields);
    const value = payload[field];
    const changed = {
      ...payload,
      [field]: typeof value === 'number' ? value + 1 + random.next(9) : `${value}x`,
    };
    add(
      `another ${field} under the same signature`,
      parts.with(1, base64url.encode(JSON.stringify(changed))).join('.'),
    );
    // Signed by a key, but not by the one that has the id.
    add('the id of another key', await signed(payload, attacker));
    add('another key that says so', await signed({ ...payload, sub: attacker.thumbprint }, attacker));
    add('the id of another service', await signed({ ...payload, serviceId: `other-${i}` }));
    // Time.
    add('expired', await signed({ ...payload, ...shift(-120 - random.next(100_000)) }));
    add('from the future', await signed({ ...payload, ...shift(61 + random.next(100_000)) }));
    add('good for too long', await signed({ ...payload, exp: payload.iat + 121 + random.next(100_000) }));
    add('ends before it begins', await signed({ ...payload, exp: payload.iat - random.next(5) }));
    // Another registry, another kind, another algorithm.
    const elsewhere = [
      'https://other.test',
      `${registryUrl}:444`,
      `${registryUrl}/x`,
      'https://registry.test.evil.test',
    ];
    add('for another registry', await signed({ ...payload, aud: random.pick(elsewhere) }));
    add('a receipt', await server.sign('tomaat-receipt+jws', payload));
    const header = random.pick<object>([
      { alg: 'none' },
      { alg: 'HS256' },
      { alg: 'ES256' },
      { typ: 'JWT' },
      { jwk: attacker.publicKey },
      { jwk: undefined },
      { jwk: { kty: 'oct', k: 'AAAA' } },
      { crit: ['x'], x: 1 },
      { kid: '../../etc/passwd' },
      { b64: false, crit: ['b64'] },
    ]);
    add(`header ${JSON.stringify(header)}`, await signWith(server, payload, header));
    add('no signature', `${parts[0]}.${parts[1]}.`);
    // Shapes.
    const bad = random.pick<object>([
      { certificate: certificateOf(0xab).toLowerCase() },
      { certificate: certificateOf(0xab).slice(3) },
      { certificate: undefined },
      { epoch: 0 },
      { epoch: 1.5 },
      { epoch: '7' },
      { surplus: 1 },
      { serverUrl: 'file:///etc/passwd' },
      { iat: undefined },
      { aud: [registryUrl] },
      { sub: 'x' },
    ]);
    add(`payload ${JSON.stringify(bad)}`, await signed({ ...payload, ...bad }));
  }
  return made.slice(0, count);
}

describe('signed announcements', () => {
  it('of 1,200 altered ones registry and client accept none, only the original', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const made = await tamper(registry.clock.ms, 1200);
    expect(new Set(made.map(({ kind }) => kind)).size).toBeGreaterThan(40);
    const accepted: string[] = [];
    const check = { isAudience: (address: string) => address === registryUrl, nowMs: registry.clock.ms };
    for (const { kind, id, text } of made) {
      const answer = await putSigned(registry, key, id, text);
      if (answer.statusCode !== 422) accepted.push(`registry: ${kind} (${answer.statusCode})`);
      const verdict = await verifyAnnouncement(text, check).catch((error: unknown) => error);
      if (!(verdict instanceof TomaatError)) accepted.push(`client: ${kind}`);
    }
    expect(accepted).toEqual([]);
    expect(await registry.entries.search({})).toEqual([]);
    expect((await announce(registry, key, 'server', announcement)).statusCode).toBe(200);
    expect(await registry.entries.search({})).toMatchObject([{ id: await idOf('server'), live: true }]);
  });

  it('the registry refuses replays and older texts, even after restarts and withdrawals', async () => {
    const first = await openTestRegistry(cleanup);
    const key = await first.key();
    const texts: string[] = [];
    const id = await idOf('server');
    for (let i = 0; i < 40; i++)
      texts.push(await server.sign(announcementType, payloadOf(announcement, server, first.clock.ms)));
    expect((await putSigned(first, key, id, texts[20])).statusCode).toBe(200);
    const replay = async (registry: typeof first, apiKey: string) => {
      for (const text of texts.slice(0, 21)) {
        const answer = await putSigned(registry, apiKey, id, text);
        expect(answer.json()).toMatchObject({
          status: 422,
          code: 'BAD_SIGNATURE',
          detail: expect.stringMatching(/epoch/),
        });
      }
    };
    await replay(first, key);
    const headers = { authorization: `Bearer ${key}` };
    const withdrawn = await first.app.inject({ method: 'DELETE', url: `/api/announcements/${id}`, headers });
    expect(withdrawn.statusCode).toBe(204);
    await replay(first, key);
    const other = await first.key('another');
    await replay(first, other);
    await first.entries.sweep();
    await first.close();
    const second = await openTestRegistry(cleanup, { dataFolder: first.folder });
    await replay(second, other);
    expect(await second.entries.search({})).toEqual([]);
    expect((await putSigned(second, key, id, texts[21])).statusCode).toBe(200);
    // When what is known of it may be forgotten, the text itself has run out.
    second.clock.ms += 600_000;
    await second.entries.sweep();
    for (const text of texts.slice(22)) expect((await putSigned(second, key, id, text)).statusCode).toBe(422);
  });

  it('accepts signed texts only at the address of their id', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const payload = payloadOf(announcement, server, registry.clock.ms);
    const signed = await server.sign(announcementType, payload);
    const others = [
      await idOf('server', 'other-service'),
      await idOf('attacker'),
      `${payload.id}x`,
      payload.id.toUpperCase(),
      payload.id.slice(0, -1),
    ];
    for (const id of others) {
      const answer = await putSigned(registry, key, id, signed);
      expect(answer.json(), id).toMatchObject({ code: 'BAD_SIGNATURE', status: 422 });
    }
    expect(await registry.entries.search({})).toEqual([]);
    expect((await putSigned(registry, key, payload.id, signed)).statusCode).toBe(200);
  });

  it('says how far the clocks are apart', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    for (const [seconds, words] of [
      [300, /300 s in the future.*Set the clocks/],
      [-300, /expired.*signed 300 s ago.*clock/],
    ] as const) {
      const payload = payloadOf(announcement, server, registry.clock.ms + seconds * 1000);
      const answer = await putSigned(registry, key, payload.id, await server.sign(announcementType, payload));
      expect((answer.json() as { detail: string }).detail).toMatch(words);
    }
    for (const seconds of [-60, -30, 0, 30, 60]) {
      const payload = payloadOf(announcement, server, registry.clock.ms + seconds * 1000);
      const answer = await putSigned(registry, key, payload.id, await server.sign(announcementType, payload));
      expect(answer.statusCode, `${seconds} s`).toBe(200);
    }
  });

  it('a client detects an entry that differs from its signature, or older ones', async () => {
    const baseUrl = registryUrl;
    const shown = async (change: Partial<Entry> = {}): Promise<Entry> => {
      const payload = payloadOf(announcement, server, Date.now());
      const { name, modality, anatomy, task, description, predictionUrl, interfaceUrl, serverUrl } = payload;
      const facts = { name, modality, anatomy, task, description, predictionUrl, interfaceUrl, serverUrl };
      return {
        ...facts,
        serviceId: payload.serviceId,
        version: payload.version,
        volumes: payload.volumes,
        default: false,
        sid: createHash('sha256').update('a').digest('hex').slice(0, 8),
        face: 'api',
        live: true,
        announcedTime: '',
        expiresTime: '',
        id: payload.id,
        signed: await server.sign(announcementType, payload),
        ...change,
      };
    };
    const client = createRegistryClient({ baseUrl });
    const older = await shown();
    expect(await client.verify(await shown())).toMatchObject({
      sub: server.thumbprint,
      certificate: certificateOf(0xa5),
    });
    await expect(client.verify(older)).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
    const changes: Partial<Entry>[] = [
      { serverUrl: 'https://evil.example:9443' },
      { serverUrl: undefined },
      { predictionUrl: 'https://evil.example/predict' },
      { interfaceUrl: 'https://evil.example/interface' },
      { serviceId: 'other' },
      { name: 'Other' },
      { modality: 'CT' },
      { anatomy: 'liver' },
      { task: 'detection' },
      { description: 'other' },
      { version: '1.3.0' },
      { version: undefined },
      { default: true },
      { volumes: 2 },
      { id: await idOf('attacker') },
      { id: undefined },
      { signed: false },
      { signed: undefined },
      { face: 'v1', signed: false },
    ];
    for (const change of changes) {
      await expect(client.verify(await shown(change)), JSON.stringify(change)).rejects.toMatchObject({
        code: 'BAD_SIGNATURE',
      });
    }
    for (const other of ['https://registry.test:8443', 'https://evil.test', 'https://registry.test/x']) {
      const elsewhere = createRegistryClient({ baseUrl: other });
      await expect(elsewhere.verify(await shown()), other).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
    }
    const byAddress = createRegistryClient({ baseUrl: 'https://10.1.2.3', otherHosts: ['registry.test'] });
    await byAddress.verify(await shown());
  });
});
