import { createReadStream, existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/** The page loads nothing from elsewhere and cannot be framed. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "font-src 'self'",
  "connect-src 'self' blob:",
  "worker-src 'self' blob:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * The page shares its memory with no window and no file of another origin, so that browsers let it compute with several
 * threads. Its workers need the headers, too.
 */
const isolation = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
} as const;

/** A document of the page, and the addresses at which it is served: its scripts find out what to show. */
interface PageDocument {
  readonly file: string;
  readonly addresses: readonly string[];
}
/** Of server and registry. */
const mainDocument: PageDocument = {
  file: 'index.html',
  addresses: ['/', '/services/:id', '/services/:id/batch', '/jobs', '/jobs/:id', '/compare', '/docs'],
};
export const gatewayDocument: PageDocument = { file: 'gateway.html', addresses: ['/'] };

/** Serves the built page: its files, and a document at every address of it. */
export async function registerPage(
  app: FastifyInstance,
  folder: string | undefined,
  { file, addresses } = mainDocument,
): Promise<void> {
  if (!folder || !existsSync(join(folder, file))) return;
  const { default: fastifyStatic } = await import('@fastify/static');
  await app.register(fastifyStatic, {
    root: folder,
    serve: false,
    // The build puts a compressed form beside each file that gets smaller (packages/web/compress.ts).
    preCompressed: true,
  });
  const { basePath, rootFrom } = app.publicAddress;
  const document = async (request: FastifyRequest, reply: FastifyReply) => {
    const [path] = request.originalUrl.split('?', 1);
    // Without the slash a browser would look for the page's files beside the path instead of below it.
    if (basePath !== '' && path === basePath) return reply.redirect(`${basePath}/`, 308);
    const html = await readFile(join(folder, file), 'utf8');
    return reply
      .header('content-security-policy', contentSecurityPolicy)
      .headers(isolation)
      .header('cache-control', 'no-cache')
      .type('text/html; charset=utf-8')
      .send(placed(html, { root: rootFrom(request.originalUrl), basePath }));
  };
  for (const address of addresses) app.get(address, document);
  const packed = await listPacked(join(folder, 'assets'));
  app.get('/assets/*', async (request, reply) => {
    reply.headers(isolation).header('cache-control', 'public, max-age=31536000, immutable');
    const path = request.url.slice(1).split('?')[0];
    const type = packed.get(path.slice('assets/'.length));
    if (type === undefined || acceptsCompressed(request.headers['accept-encoding']))
      return reply.sendFile(path);
    const unpacked = pipeline(createReadStream(join(folder, `${path}.gz`)), createGunzip(), () => {});
    return reply.type(type).header('vary', 'accept-encoding').send(unpacked);
  });
}

const typeOf: Record<string, string> = {
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/** The files of which a release (deploy/release.sh) has the compressed forms alone, with their types. */
async function listPacked(folder: string): Promise<Map<string, string>> {
  const names = new Set(existsSync(folder) ? await readdir(folder) : []);
  const alone = [...names].filter((name) => name.endsWith('.gz')).map((name) => name.slice(0, -'.gz'.length));
  return new Map(alone.filter((name) => !names.has(name)).map((name) => [name, typeOf[extname(name)]]));
}

/** Whether a compressed form can be sent, by the header `accept-encoding`. */
function acceptsCompressed(accepted = ''): boolean {
  return accepted
    .toLowerCase()
    .split(',')
    .map((entry) => entry.split(';').map((part) => part.trim()))
    .some(
      ([coding, quality]) =>
        ['br', 'gzip', '*'].includes(coding) && Number(quality?.slice('q='.length)) !== 0,
    );
}

/**
 * The document for one address: its links lead to our root, and two meta elements give its scripts the root and the base
 * (packages/web/src/base.ts reads them).
 */
function placed(html: string, { root, basePath }: { root: string; basePath: string }): string {
  return html
    .replaceAll('="./', () => `="${root}`)
    .replace(
      '<head>',
      () =>
        `<head><meta name="tomaat-root" content="${root}" /><meta name="tomaat-base" content="${basePath}" />`,
    );
}
