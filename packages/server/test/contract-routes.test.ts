import { rm } from 'node:fs/promises';
import { type Endpoint, endpoints, isOn, type Program } from '@tomaat/client';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { routeUrlOf } from './check-answers.ts';
import { startTestGateway } from './gateway-fixture.ts';
import { createCleanup, openTestRegistry } from './registry-helpers.ts';
import { legacyFaces } from './route-needs.ts';
import { routesOf } from './routes-of.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* The table of the contract and the tables of the routers are the same, both ways. */

const cleanup = createCleanup();
let folder: string;
let server: TestServer;
const apps: Partial<Record<Program, FastifyInstance>> = {};

beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startTestServer(['threshold'], {
    workers: 0,
    dataFolder: folder,
    faces: [...legacyFaces],
  });
  apps.server = server.app;
  apps.registry = (await openTestRegistry(cleanup)).app;
  await apps.registry.ready();
  const gateway = await startTestGateway();
  cleanup.add(() => gateway[Symbol.asyncDispose]());
  apps.gateway = gateway.app;
});
afterAll(async () => {
  await cleanup.run();
  await server?.close();
  await rm(folder, { recursive: true, force: true });
});

/** The addresses of the page, which is no part of the API. */
const isPage = (url: string) => /^\/(|jobs|jobs\/:id|services\/:id|assets\/\*)$/.test(url);
/** TOMAAT v1 of one service has the addresses of the default one, below its own. */
const rootOfV1 = (url: string) => url.replace(/^\/services\/:id(?=\/(interface|predict|responses)$)/, '');

describe.each(['server', 'registry', 'gateway'] as const)('the contract of a %s', (on) => {
  const rows = Object.values<Endpoint>(endpoints).filter((endpoint) => isOn(endpoint, on));
  const declared = rows.map(({ method, path }) => `${method} ${routeUrlOf(path)}`);

  it('has no address twice', () => {
    expect(declared.filter((row, i) => declared.indexOf(row) !== i)).toEqual([]);
  });

  it('is served whole', () => {
    const served = routesOf(apps[on]!).map(({ method, url }) => `${method} ${url}`);
    expect(declared.filter((row) => !served.includes(row))).toEqual([]);
  });

  it('has every route', () => {
    const isV1 = (url: string) => rows.some(({ tag, path }) => tag === 'v1' && path === url);
    const undeclared = routesOf(apps[on]!)
      .map(({ method, url }) => ({ method, url: rootOfV1(url) }))
      // A caller that can GET can HEAD, and pages elsewhere ask v1 whether they may.
      .filter(({ method, url }) => !(method === 'HEAD' && declared.includes(`GET ${url}`)))
      .filter(({ method, url }) => !(method === 'OPTIONS' && isV1(url)))
      .filter(({ url }) => !isPage(url))
      .map(({ method, url }) => `${method} ${url}`)
      .filter((route) => !declared.includes(route));
    expect(undeclared).toEqual([]);
  });
});
