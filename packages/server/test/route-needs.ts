/**
 * Every route of the server, the registry and the gateway with what it needs, written by hand: nothing here comes from
 * access/table.ts, so that a need that was lowered there, or a route that was added without a thought, fails the matrix.
 * Who changes one of the two has to change the other, and say why.
 */

/** What a caller needs: nothing, a key with this scope, or (of a browser) to come as the page or by a link. */
export type Expected = 'nothing' | 'a page' | 'predict' | 'announce' | 'worker' | 'metrics' | 'admin';

/** The faces that the legacy port can have. */
export const legacyFaces = ['v1', 'monailabel', 'auto3dseg'] as const;
type LegacyFace = (typeof legacyFaces)[number];

/** Lines of a table: methods, the route as it is registered, what it needs; the face where the legacy port can have it too. */
function parse(text: string): ReadonlyMap<string, { need: Expected; legacy?: LegacyFace }> {
  const rows = new Map<string, { need: Expected; legacy?: LegacyFace }>();
  for (const line of text.trim().split('\n')) {
    const [methods, url, ...words] = line.trim().split(/ +/);
    const legacy = legacyFaces.find((face) => face === words.at(-1));
    const need = words.slice(0, legacy ? -1 : undefined).join(' ') as Expected;
    for (const method of methods.split(',')) rows.set(`${method} ${url}`, { need, legacy });
  }
  return rows;
}

const all = `
  GET,HEAD   /health/live                             nothing
  GET,HEAD   /health/ready                            nothing
  GET,HEAD   /api/openapi.json                        nothing
  GET,HEAD   /metrics                                 metrics
  GET,HEAD   /                                        a page
  GET,HEAD   /assets/*                                nothing
  GET        /auth/me                                 a page
  POST       /auth/session                            nothing
  DELETE     /auth/session                            nothing
  GET        /auth/oidc/login                         a page
  GET        /auth/oidc/callback                      a page
`;

/** Of server and registry. */
const both = `
  ${all.trim()}
  GET,HEAD   /services/:id                            a page
  GET,HEAD   /jobs                                    a page
  GET,HEAD   /jobs/:id                                a page
  GET,HEAD   /services/:id/batch                      a page
  GET,HEAD   /compare                                 a page
  GET,HEAD   /docs                                    a page
  GET,HEAD   /api/services                            predict
  POST       /:task/:anatomy                          predict
`;

export const serverNeeds = parse(`
  ${both.trim()}
  GET,HEAD   /api/services/:id                        predict
  GET,HEAD   /api/services/:id/sample                 predict
  GET,HEAD   /api/services/:id/picture                predict
  GET,HEAD   /api/services/:id/manifest               predict
  GET,HEAD   /api/services/:id/model                  predict
  POST       /api/services/:id/fit                    predict
  POST       /api/services/:id/predictions            predict
  GET,HEAD   /api/jobs/:id                            predict
  DELETE     /api/jobs/:id                            predict
  POST       /api/jobs/:id/cancel                     predict
  POST       /api/jobs/:id/keep                       predict
  GET,HEAD   /api/jobs/:id/events                     predict
  GET,HEAD   /api/jobs/:id/receipt                    predict
  GET,HEAD   /api/jobs/:id/outputs/:name              predict
  OPTIONS    /api/uploads                             predict
  POST       /api/uploads                             predict
  HEAD       /api/uploads/:id                         predict
  PATCH      /api/uploads/:id                         predict
  DELETE     /api/uploads/:id                         predict
  HEAD       /api/blobs/:digest                       predict
  GET,HEAD   /api/worker                              worker
  POST       /api/worker/claim                        worker
  POST       /api/worker/jobs/:id/touch               worker
  GET,HEAD   /api/worker/jobs/:id/inputs/:digest      worker
  PUT        /api/worker/jobs/:id/outputs/:name       worker
  POST       /api/worker/jobs/:id/complete            worker
  POST       /api/worker/jobs/:id/fail                worker
  POST       /api/worker/jobs/:id/hand-back           worker
  GET,HEAD   /interface                               predict v1
  OPTIONS    /interface                               predict v1
  POST       /predict                                 predict v1
  OPTIONS    /predict                                 predict v1
  POST       /responses                               predict v1
  OPTIONS    /responses                               predict v1
  GET,HEAD   /services/:id/interface                  predict v1
  OPTIONS    /services/:id/interface                  predict v1
  POST       /services/:id/predict                    predict v1
  OPTIONS    /services/:id/predict                    predict v1
  POST       /services/:id/responses                  predict v1
  OPTIONS    /services/:id/responses                  predict v1
  GET        /monailabel/auth                         nothing monailabel
  POST       /monailabel/auth/token                   nothing monailabel
  GET        /monailabel/auth/token/valid             predict monailabel
  GET,HEAD   /monailabel/info                         predict monailabel
  GET,HEAD   /monailabel/datastore                    predict monailabel
  PUT        /monailabel/datastore                    predict monailabel
  PUT        /monailabel/datastore/image              predict monailabel
  PUT        /monailabel/session                      predict monailabel
  GET        /monailabel/session/:id                  predict monailabel
  DELETE     /monailabel/session/:id                  predict monailabel
  POST       /monailabel/infer/:model                 predict monailabel
  POST       /monailabel/activelearning/:strategy     predict monailabel
  GET,HEAD   /auto3dseg/models                        predict auto3dseg
  GET        /auto3dseg/modelinfo                     predict auto3dseg
  GET,HEAD   /auto3dseg/monaiinfo                     predict auto3dseg
  GET        /auto3dseg/labelDescriptions             predict auto3dseg
  POST       /auto3dseg/infer                         predict auto3dseg
`);

export const registryNeeds = parse(`
  ${both.trim()}
  PUT        /api/announcements/:id                   announce
  DELETE     /api/announcements/:id                   announce
  GET,HEAD   /discover                                predict v1
  OPTIONS    /discover                                predict v1
  POST       /announce                                nothing v1
  OPTIONS    /announce                                nothing v1
`);

/** The hook takes the secret of its source, which is no key. */
export const gatewayNeeds = parse(`
  ${all.trim()}
  POST       /hooks/orthanc/:source                   nothing
  GET,HEAD   /api/gateway/summary                     admin
  GET,HEAD   /api/gateway/series                      admin
  GET,HEAD   /api/gateway/series/:id                  admin
  POST       /api/gateway/series/:id/retry            admin
  DELETE     /api/gateway/series/:id                  admin
`);

/** The scopes by which a caller gets past each need; `admin` gets past all of them. */
export const scopesFor: Readonly<Record<Expected, readonly string[] | undefined>> = {
  nothing: undefined,
  'a page': undefined,
  predict: ['predict', 'admin'],
  announce: ['announce', 'admin'],
  worker: ['worker', 'admin'],
  metrics: ['metrics', 'admin'],
  admin: ['admin'],
};
