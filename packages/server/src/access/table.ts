import type { FaceName } from '../settings.ts';
import type { KeyScope } from './scopes.ts';

/**
 * What each route of server, registry and gateway requires; the only place that defines it. A route without a row makes startup
 * fail, so that no route is open by mistake.
 *
 * - `public`: no authentication
 * - `page`: the same, and other sites may lead a browser to it (a link, the way back from a login)
 * - `predict`, `announce`, `worker`, `metrics`, `admin`: a caller with that scope, or with `admin`
 *
 * Without login everything except `announce` and `worker` is open to this machine. `GET` includes `HEAD`. A row that
 * ends with `*` applies to all addresses with that prefix.
 */
export type Need = 'public' | 'page' | 'predict' | 'announce' | 'worker' | 'metrics' | 'admin';

const table: Readonly<Record<string, Need>> = {
  // Health and API description: for load balancers and authors of clients.
  'GET /health/live': 'public',
  'GET /health/ready': 'public',
  'GET /api/openapi.json': 'public',
  'GET /metrics': 'metrics',

  // The page's files. The page fetches its data like any client.
  'GET /': 'page',
  'GET /services/:id': 'page',
  'GET /services/:id/batch': 'page',
  'GET /jobs': 'page',
  'GET /jobs/:id': 'page',
  'GET /compare': 'page',
  'GET /docs': 'page',
  'GET /assets/*': 'public',

  // Logging in and out. The way back from an OpenID provider comes from another site.
  'GET /auth/*': 'page',
  'POST /auth/*': 'public',
  'DELETE /auth/*': 'public',

  'GET /api/services': 'predict',
  'GET /api/services/:id': 'predict',
  'GET /api/services/:id/sample': 'predict',
  'GET /api/services/:id/picture': 'predict',
  'GET /api/services/:id/manifest': 'predict',
  'GET /api/services/:id/model': 'predict',
  'POST /api/services/:id/fit': 'predict',
  'POST /api/services/:id/predictions': 'predict',
  'GET /api/jobs/:id': 'predict',
  'POST /api/jobs/:id/cancel': 'predict',
  'POST /api/jobs/:id/keep': 'predict',
  'DELETE /api/jobs/:id': 'predict',
  'GET /api/jobs/:id/events': 'predict',
  'GET /api/jobs/:id/receipt': 'predict',
  'GET /api/jobs/:id/outputs/:name': 'predict',
  'OPTIONS /api/uploads': 'predict',
  'POST /api/uploads': 'predict',
  'HEAD /api/uploads/:id': 'predict',
  'PATCH /api/uploads/:id': 'predict',
  'DELETE /api/uploads/:id': 'predict',
  'HEAD /api/blobs/:digest': 'predict',
  'POST /:task/:anatomy': 'predict',

  'GET /api/worker': 'worker',
  'POST /api/worker/claim': 'worker',
  'POST /api/worker/jobs/:id/touch': 'worker',
  'GET /api/worker/jobs/:id/inputs/:digest': 'worker',
  'PUT /api/worker/jobs/:id/outputs/:name': 'worker',
  'POST /api/worker/jobs/:id/complete': 'worker',
  'POST /api/worker/jobs/:id/fail': 'worker',
  'POST /api/worker/jobs/:id/hand-back': 'worker',

  'PUT /api/announcements/:id': 'announce',
  'DELETE /api/announcements/:id': 'announce',

  // The gateway. The secret of Orthanc's hook is that of its source; the route checks it.
  'POST /hooks/orthanc/:source': 'public',
  'GET /api/gateway/summary': 'admin',
  'GET /api/gateway/series': 'admin',
  'GET /api/gateway/series/:id': 'admin',
  'POST /api/gateway/series/:id/retry': 'admin',
  'DELETE /api/gateway/series/:id': 'admin',

  // MONAI Label (--faces). A client asks before it logs in whether it has to.
  'GET /monailabel/auth': 'public',
  'POST /monailabel/auth/token': 'public',
  'GET /monailabel/auth/token/valid': 'predict',
  'GET /monailabel/info': 'predict',
  'GET /monailabel/datastore': 'predict',
  'PUT /monailabel/datastore': 'predict',
  'PUT /monailabel/datastore/image': 'predict',
  'PUT /monailabel/session': 'predict',
  'GET /monailabel/session/:id': 'predict',
  'DELETE /monailabel/session/:id': 'predict',
  'POST /monailabel/infer/:model': 'predict',
  'POST /monailabel/activelearning/:strategy': 'predict',

  // Auto3DSeg (--faces).
  'GET /auto3dseg/models': 'predict',
  'GET /auto3dseg/modelinfo': 'predict',
  'GET /auto3dseg/monaiinfo': 'predict',
  'GET /auto3dseg/labelDescriptions': 'predict',
  'POST /auto3dseg/infer': 'predict',

  // TOMAAT v1.
  'GET /interface': 'predict',
  'OPTIONS /interface': 'predict',
  'POST /predict': 'predict',
  'OPTIONS /predict': 'predict',
  'POST /responses': 'predict',
  'OPTIONS /responses': 'predict',
  'GET /services/:id/interface': 'predict',
  'OPTIONS /services/:id/interface': 'predict',
  'POST /services/:id/predict': 'predict',
  'OPTIONS /services/:id/predict': 'predict',
  'POST /services/:id/responses': 'predict',
  'OPTIONS /services/:id/responses': 'predict',
  'GET /discover': 'predict',
  'OPTIONS /discover': 'predict',
  // Its key is in the JSON body, as in v1; the route checks it.
  'POST /announce': 'public',
  'OPTIONS /announce': 'public',
};

/** What a route (by its registered address) requires; undefined if the table has no row for it. */
export function needOf(method: string, route: string): Need | undefined {
  const methods = method === 'HEAD' ? ['HEAD', 'GET'] : [method];
  for (const one of methods) {
    const exact = `${one} ${route}`;
    if (Object.hasOwn(table, exact)) return table[exact];
    const open = Object.keys(table).find((row) => row.endsWith('/*') && exact.startsWith(row.slice(0, -1)));
    if (open) return table[open];
  }
  return undefined;
}

/**
 * The scripts and styles of the page, which contain only published files of the package. They are served to a
 * page of any address: behind a proxy that is not configured, the page must load before it can report that.
 */
export const isPageFile = (route: string | undefined): boolean => route === '/assets/*';

/** The face that a route belongs to: the legacy listener has the routes of certain faces alone. */
export function faceOf(route: string): FaceName | undefined {
  if (/^(\/services\/:id)?\/(interface|predict|responses)$|^\/(discover|announce)$/.test(route)) return 'v1';
  return /^\/(monailabel|auto3dseg)\//.exec(route)?.[1] as FaceName | undefined;
}

/** The scope that a need requires. */
export const scopeFor = {
  predict: 'predict',
  announce: 'announce',
  worker: 'worker',
  metrics: 'metrics',
  admin: 'admin',
} as const satisfies Partial<Record<Need, KeyScope>>;
