import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { bundleSdk, rolldown } from '../test/sdk-bundle.ts';
import { dicomFile, relatedBody } from './fixtures.ts';

const browserFile = findChromium();
const files = [dicomFile('1.2.3.1', { size: 100_000 }), dicomFile('1.2.3.2')];
const reference = { '00081155': { vr: 'UI', Value: ['1.2.3.1'] } };

async function lengthOfBody(request: IncomingMessage): Promise<number> {
  let length = 0;
  for await (const chunk of request) length += (chunk as Buffer).length;
  return length;
}

describe('createDicomWeb() in a browser', () => {
  it.skipIf(!rolldown || !browserFile)(
    'searches, retrieves and stores across origins, and reports redirects as refusals',
    async () => {
      const code = await bundleSdk();
      const pages = createServer((_request, response) =>
        response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>t</title>'),
      );
      await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
      const pageUrl = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
      let stored: { stated?: string; received: number } | undefined;
      const pacs = createServer(async (request, response) => {
        const cors = {
          'access-control-allow-origin': pageUrl,
          'access-control-allow-headers': 'accept, authorization, content-type',
        };
        const received = await lengthOfBody(request);
        const { pathname } = new URL(request.url!, 'http://x');
        if (request.method === 'OPTIONS') return response.writeHead(204, cors).end();
        if (pathname === '/closed/studies') return response.writeHead(401).end();
        if (pathname === '/moved/studies')
          return response.writeHead(302, { ...cors, location: '/dicom-web/studies' }).end();
        if (request.headers.authorization !== 'Bearer t') return response.writeHead(401, cors).end();
        const json = { ...cors, 'content-type': 'application/dicom+json' };
        if (request.method === 'POST') {
          stored = { stated: request.headers['content-length'], received };
          return response
            .writeHead(200, json)
            .end(JSON.stringify({ '00081199': { vr: 'SQ', Value: [reference] } }));
        }
        if (pathname === '/dicom-web/studies')
          return response.writeHead(200, json).end('[{"0020000D":{"vr":"UI","Value":["1.2"]}}]');
        const type = 'multipart/related; type="application/dicom"; boundary=XX';
        return response.writeHead(200, { ...cors, 'content-type': type }).end(relatedBody(files, 'XX'));
      });
      await new Promise<void>((resolve) => pacs.listen(0, '127.0.0.1', resolve));
      const url = `http://127.0.0.1:${(pacs.address() as AddressInfo).port}`;
      const { chromium } = await import('playwright-core');
      const browser = await chromium.launch({ executablePath: browserFile, args: ['--no-sandbox'] });
      try {
        const page = await browser.newPage();
        await page.goto(pageUrl);
        await page.addScriptTag({ content: code });
        const seen = await page.evaluate(async (url) => {
          const { createDicomWeb } = (globalThis as unknown as { tomaat: typeof import('./index.ts') })
            .tomaat;
          const at = (path: string) =>
            createDicomWeb({ url: url + path, headers: { authorization: 'Bearer t' }, retries: 0 });
          const refusal = (path: string) =>
            at(path)
              .searchStudies()
              .then(
                () => 'none',
                (error) => `${error.code}: ${error.message}`,
              );
          const web = at('/dicom-web');
          const studies = await web.searchStudies();
          const lengths: number[] = [];
          const pulled: Uint8Array<ArrayBuffer>[] = [];
          for await (const { bytes } of web.retrieveSeries('1.2', '1.2.3')) {
            lengths.push(bytes.length);
            pulled.push(bytes);
          }
          const report = await web.store([new Blob([pulled[0]]), pulled[1]]);
          const uids = { stored: report.stored, failed: report.failed };
          return { studies, lengths, uids, moved: await refusal('/moved'), closed: await refusal('/closed') };
        }, url);
        expect(seen.studies).toMatchObject([{ studyInstanceUid: '1.2' }]);
        expect(seen.lengths).toEqual(files.map(({ length }) => length));
        expect(seen.uids).toMatchObject({
          stored: [{ index: 0, sopInstanceUid: '1.2.3.1' }],
          failed: [{ index: 1, sopInstanceUid: '1.2.3.2' }],
        });
        expect(stored).toEqual({ stated: String(stored!.received), received: stored!.received });
        expect(stored!.received).toBeGreaterThan(100_000);
        expect(seen.moved).toMatch(
          /^UPSTREAM: .* redirects this request, and the browser does not reveal the target\./,
        );
        expect(seen.closed).toMatch(
          /^UNREACHABLE: .* does not let pages of .* use it\. .* must allow this origin \(CORS\)/,
        );
      } finally {
        await browser.close();
        for (const server of [pages, pacs]) {
          server.closeAllConnections();
          server.close();
        }
      }
    },
  );
});
