import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { bundleSdk, rolldown } from '../test/sdk-bundle.ts';

const browserFile = findChromium();

describe('createClient() in a browser', () => {
  it.skipIf(!rolldown || !browserFile)(
    'uploads by XMLHttpRequest with progress, and gives the Problem of a refusal',
    async () => {
      const code = await bundleSdk();
      let receivedBytes = 0;
      const headers: Record<string, unknown> = {};
      const server = createServer(async (request, response) => {
        if (request.url === '/')
          return response
            .writeHead(200, { 'content-type': 'text/html' })
            .end('<!doctype html><title>t</title>');
        for await (const chunk of request) receivedBytes += (chunk as Buffer).length;
        Object.assign(headers, request.headers);
        const ok = request.url === '/api/services/s/predictions?frame=1';
        const job = {
          id: 'j',
          service: 's',
          state: 'queued',
          attempt: 1,
          createdTime: '',
          parameters: {},
          outputs: [],
        };
        const problem = {
          type: 'x',
          title: 'x',
          status: 404,
          detail: 'No such service.',
          code: 'NOT_FOUND',
          retryable: false,
        };
        return response
          .writeHead(ok ? 202 : 404, { 'content-type': ok ? 'application/json' : 'application/problem+json' })
          .end(JSON.stringify(ok ? job : problem));
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { chromium } = await import('playwright-core');
      const browser = await chromium.launch({ executablePath: browserFile, args: ['--no-sandbox'] });
      try {
        const page = await browser.newPage();
        await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
        await page.addScriptTag({ content: code });
        const seen = await page.evaluate(async () => {
          const { createClient } = (globalThis as unknown as { tomaat: typeof import('./index.ts') }).tomaat;
          const client = createClient({ baseUrl: '/', apiKey: 'k' });
          const volume = new File([new Uint8Array(20_000_000)], 'a.nii');
          const progress: number[] = [];
          const job = await client.predict('s', {
            volumes: { volume },
            values: { x: 1 },
            frame: 1,
            onUpload: ({ sentBytes, totalBytes }) => progress.push(sentBytes / totalBytes),
          });
          const refused = await client
            .predict('none', { volumes: { volume } })
            .catch((error) => error.code as string);
          const stop = new AbortController();
          stop.abort(new Error('enough'));
          const aborted = await client
            .predict('s', { volumes: { volume }, signal: stop.signal })
            .catch((error) => error.message as string);
          return { state: job.state, progress, refused, aborted };
        });
        expect(seen).toMatchObject({ state: 'queued', refused: 'NOT_FOUND', aborted: 'enough' });
        expect(seen.progress.length).toBeGreaterThan(0);
        expect(seen.progress.at(-1)).toBe(1);
        expect(receivedBytes).toBeGreaterThan(40_000_000);
        expect(headers).toMatchObject({ authorization: 'Bearer k' });
        expect(headers['idempotency-key']).toMatch(/^[0-9a-f]{32}$/);
      } finally {
        await browser.close();
        server.closeAllConnections();
        server.close();
      }
    },
  );
});
