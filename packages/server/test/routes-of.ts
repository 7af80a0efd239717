import type { FastifyInstance } from 'fastify';

/** The routes as the router itself prints them: lines such as `│   └── /:id (GET, HEAD)`, nested by four characters. */
export function routesOf(app: FastifyInstance): { method: string; url: string }[] {
  const parts: string[] = [];
  const found: { method: string; url: string }[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split('\n')) {
    const match = /^((?:│ {3}| {4})*)[├└]── (.*?)(?: \(([A-Z, ]+)\))?$/.exec(line);
    if (!match) continue;
    const depth = match[1].length / 4;
    parts.splice(depth, parts.length, match[2]);
    for (const method of match[3]?.split(', ') ?? []) found.push({ method, url: parts.join('') });
  }
  return found;
}
