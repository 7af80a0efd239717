import { cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { type IncomingHttpHeaders, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { boxedApp, buildPage, openSite, type Site } from './support/site.ts';

/* The page's files on the wire: what a browser loads, for what it says it accepts. */

describe('files of the page', () => {
  let site: Site;
  let folder: string;
  let names: string[];
  beforeAll(async () => {
    const pageFolder = await buildPage();
    folder = join(pageFolder, 'assets');
    names = await readdir(folder);
    site = await openSite(pageFolder, { appFolders: [boxedApp('threshold')] });
  }, 120_000);
  afterAll(() => site?.stop());

  const engine = () => names.find((name) => /^ort-wasm-simd-threaded-.*\.wasm$/.test(name))!;
  /** As sent: nothing decodes it. */
  async function get(name: string, headers: Record<string, string>, method = 'GET', { address } = site) {
    const answer = await new Promise<{
      status?: number;
      headers: IncomingHttpHeaders;
      body: Promise<Buffer>;
    }>((resolve, reject) =>
      request(`${address}/assets/${name}`, { headers, method }, (response) =>
        resolve({ status: response.statusCode, headers: response.headers, body: buffer(response) }),
      )
        .on('error', reject)
        .end(),
    );
    return { ...answer, body: await answer.body };
  }

  it.each([
    ['br', 'gzip, deflate, br, zstd', brotliDecompressSync, 2.9e6],
    ['gzip', 'gzip, deflate', gunzipSync, 3.9e6],
    ['gzip', 'br;q=0, gzip', gunzipSync, 3.9e6],
  ] as const)(
    'the engine comes in %s for “%s”, with its exact length',
    async (encoding, accepted, decode, most) => {
      const { status, headers, body } = await get(engine(), { 'accept-encoding': accepted });
      expect([status, headers['content-encoding']]).toEqual([200, encoding]);
      expect(headers['content-type']).toBe('application/wasm');
      expect(headers.vary?.toLowerCase()).toContain('accept-encoding');
      expect(Number(headers['content-length'])).toBe(body.length);
      expect(body.length).toBeLessThan(most);
      expect(decode(body).equals(await readFile(join(folder, engine())))).toBe(true);
      expect(headers['cross-origin-embedder-policy']).toBe('require-corp');
    },
  );

  it('come as they are to who accepts no compression', async () => {
    for (const accepted of [{}, { 'accept-encoding': 'identity' }, { 'accept-encoding': 'zstd' }]) {
      const { headers, body } = await get(engine(), accepted as Record<string, string>);
      expect(headers['content-encoding']).toBeUndefined();
      expect(Number(headers['content-length'])).toBe(body.length);
      expect(body.equals(await readFile(join(folder, engine())))).toBe(true);
    }
  });

  it('have an entity tag for each encoding, and are not sent again to who has them', async () => {
    const tags = new Set<string>();
    for (const accepted of ['br', 'gzip', 'identity']) {
      const { headers } = await get(engine(), { 'accept-encoding': accepted }, 'HEAD');
      tags.add(headers.etag!);
      const again = await get(engine(), { 'accept-encoding': accepted, 'if-none-match': headers.etag! });
      expect([again.status, again.body.length]).toEqual([304, 0]);
    }
    expect(tags.size).toBe(3);
  });

  it('come unpacked where a release has their compressed forms alone', async () => {
    await using released = new AsyncDisposableStack();
    const copy = await mkdtemp(join(tmpdir(), 'tomaat-page-'));
    released.defer(() => rm(copy, { recursive: true, force: true }));
    await cp(join(folder, '..'), copy, { recursive: true });
    for (const name of names) if (names.includes(`${name}.gz`)) await rm(join(copy, 'assets', name));
    const bare = await openSite(copy, { appFolders: [boxedApp('threshold')] });
    released.defer(() => bare.stop());
    const styles = names.find((name) => name.endsWith('.css'))!;
    for (const [name, type] of [
      [engine(), 'application/wasm'],
      [styles, 'text/css; charset=utf-8'],
    ]) {
      const whole = await readFile(join(folder, name));
      for (const accepted of ['', 'identity', 'br;q=0, gzip;q=0']) {
        const { status, headers, body } = await get(name, { 'accept-encoding': accepted }, 'GET', bare);
        expect([status, headers['content-encoding'], headers['content-type']]).toEqual([
          200,
          undefined,
          type,
        ]);
        expect(headers.vary?.toLowerCase()).toContain('accept-encoding');
        expect(body.equals(whole)).toBe(true);
      }
      expect((await get(name, {}, 'HEAD', bare)).status).toBe(200);
      const compressed = await get(name, { 'accept-encoding': 'gzip' }, 'GET', bare);
      expect(compressed.headers['content-type']).toBe(type);
      expect(gunzipSync(compressed.body).equals(whole)).toBe(true);
    }
    expect((await get('none.js', {}, 'GET', bare)).status).toBe(404);
  });

  it('are compressed if they are scripts, styles or engines of 20 kB or more', async () => {
    const large: string[] = [];
    for (const name of names)
      if (/\.(js|css|wasm)$/.test(name) && (await stat(join(folder, name))).size > 20_000) large.push(name);
    expect(large.length).toBeGreaterThan(10);
    expect(large.filter((name) => !names.includes(`${name}.br`) || !names.includes(`${name}.gz`))).toEqual(
      [],
    );
  });
});
