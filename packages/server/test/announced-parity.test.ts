import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { announcementType, createRegistryClient, type Entry } from '@tomaat/client';
import { compactVerify, EmbeddedJWK } from 'jose';
import { afterEach, expect, it } from 'vitest';
import { type AnnouncedService, startAnnouncer } from '../src/registry/announcer.ts';
import { openSigner } from '../src/registry/signer.ts';
import {
  announcementOf,
  certificateOf,
  createCleanup,
  identityOf,
  openFolder,
  openTestRegistry,
  payloadOf,
  putSigned,
} from './registry-helpers.ts';

/* What a server announces of the parity of a service: signed, and harmless to registries and clients that do not know it. */

const cleanup = createCleanup();
afterEach(() => cleanup.run());

const server = await identityOf('server');
const parity = {
  verdict: 'close',
  agree: 0.9995,
  cases: 3,
  conditions: 'Windows were not mirrored.',
} as const;
const service = (more: Partial<AnnouncedService> = {}): AnnouncedService => ({
  id: `${server.thumbprint}.a`,
  ...announcementOf('http://127.0.0.1:9000', { serviceId: 'a', name: 'a' }),
  ...more,
});

/** Announces to this registry once; what the log says is the result. */
async function announceTo(registryUrl: string, apiKey: string, services: AnnouncedService[]) {
  const dataFolder = await openFolder(cleanup);
  const signer = await openSigner({ dataFolder, identity: server, certificate: certificateOf(1) });
  const said: string[] = [];
  const add = (_: unknown, text?: string) => void said.push(String(text));
  const logger = { info: add, warn: add, error: add };
  const announcer = startAnnouncer({ registryUrl, apiKey, services: () => services, signer, logger });
  cleanup.add(() => announcer.close());
  await announcer.firstRound;
  return { said, state: announcer.state() };
}

it('a registry shows it, and clients check it against what the server signed', async () => {
  const registry = await openTestRegistry(cleanup, { now: Date.now });
  await registry.app.listen({ host: '127.0.0.1', port: 0 });
  const baseUrl = `http://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`;
  const other = service({
    id: `${server.thumbprint}.b`,
    serviceId: 'b',
    name: 'b',
    predictionUrl: 'http://127.0.0.1:9000/b',
  });
  const { said, state } = await announceTo(baseUrl, await registry.key(), [service({ parity }), other]);
  expect([said, state.announced, state.error]).toEqual([[], 2, undefined]);
  const client = createRegistryClient({ baseUrl });
  const [a, b] = await client.discover();
  expect([a.parity, b.parity]).toEqual([parity, undefined]);
  expect((await client.verify(a)).parity).toEqual(parity);
  expect((await client.verify(b)).parity).toBeUndefined();
  // A registry that does not know it shows none.
  expect((await client.verify({ ...a, parity: undefined })).parity).toEqual(parity);
  const liars: Entry[] = [
    { ...a, parity: { ...parity, verdict: 'exact' } },
    { ...a, parity: { ...parity, agree: 1 } },
    { ...a, parity: { ...parity, cases: 30 } },
    { ...a, parity: { ...parity, conditions: undefined } },
    { ...b, parity },
  ];
  for (const entry of liars)
    await expect(client.verify(entry)).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
      message: expect.stringContaining('another parity'),
    });
});

it('a registry refuses one that is invalid, and names its fault', async () => {
  const registry = await openTestRegistry(cleanup);
  const key = await registry.key();
  for (const [bad, field] of [
    [{ ...parity, verdict: 'perfect' }, 'verdict'],
    [{ ...parity, agree: 2 }, 'agree'],
    [{ ...parity, conditions: 'a\u202eb' }, 'conditions'],
    ['exact', 'parity'],
  ] as const) {
    const { id: _, ...announcement } = service();
    const payload = payloadOf(announcement, server, registry.clock.ms);
    const signed = await server.sign(announcementType, payload, { parity: bad });
    const answer = await putSigned(registry, key, payload.id, signed);
    expect(answer.json()).toMatchObject({ status: 422, detail: expect.stringContaining(field) });
  }
});

it('a registry of 0.1, whose announcements have these keys and no others, accepts the service', async () => {
  const known =
    'name modality anatomy task description predictionUrl interfaceUrl serverUrl serviceId version default volumes'
      .split(' ')
      .concat('id sub aud iat exp epoch certificate'.split(' '));
  const received: string[][] = [];
  const old = createServer(async (request, response) => {
    if (request.method === 'DELETE') return void response.writeHead(204).end();
    let text = '';
    for await (const chunk of request) text += chunk;
    const body = JSON.parse(text);
    const { payload, protectedHeader } = await compactVerify(body.signed, EmbeddedJWK, {
      algorithms: ['EdDSA'],
    });
    const keys = Object.keys(JSON.parse(Buffer.from(payload).toString()));
    received.push(Object.keys(protectedHeader).sort());
    const isKnown = Object.keys(body).join() === 'signed' && keys.every((name) => known.includes(name));
    response.writeHead(isKnown ? 200 : 422, { 'content-type': 'application/json' }).end('{}');
  });
  await new Promise<void>((resolve) => old.listen(0, '127.0.0.1', resolve));
  cleanup.add(() => old.close());
  const url = `http://127.0.0.1:${(old.address() as AddressInfo).port}`;
  const { said, state } = await announceTo(url, 'tmt_key', [service({ parity }), service()]);
  expect([said, state.announced, state.error]).toEqual([[], 2, undefined]);
  expect(received).toEqual([
    ['alg', 'jwk', 'parity', 'typ'],
    ['alg', 'jwk', 'typ'],
  ]);
});
