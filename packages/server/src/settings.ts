/**
 * The settings of `tomaat up`, `serve` and `registry`, with their defaults. Each
 * key is a line of `tomaat.config.yaml` (tlsPort: 9443), a variable (TOMAAT_TLS_PORT=9443) and a flag (--tls-port 9443).
 * `config.ts` defines the allowed values. Plain data, so that a help text loads nothing else.
 */

export interface Setting {
  /** The value of the flag in help texts; missing for a switch. */
  readonly value?: `<${string}>`;
  /** A secret has no flag, because other users could read it. */
  readonly hasNoFlag?: true;
  readonly about: string;
  /** A switch that is on: its flag turns it off (`--no-…`). */
  readonly isOn?: true;
  /** May be given more than once. */
  readonly isList?: true;
  /** The default. If missing, a list is empty, a switch is off unless `isOn`, and anything else has no value. */
  readonly default?: string | number | readonly string[];
  /** Text of the default in the help, if the value alone is not clear. */
  readonly defaultText?: string;
  /** A value with a special meaning, shown with the default. */
  readonly special?: string;
}

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** Protocols that a server speaks besides its own API (`faces/faces.ts`). */
export const faceNames = ['v1', 'monailabel', 'auto3dseg'] as const;
export type FaceName = (typeof faceNames)[number];

/** As they are called in texts. */
export const faceTitles: Readonly<Record<FaceName, string>> = {
  v1: 'TOMAAT v1',
  monailabel: 'MONAI Label',
  auto3dseg: 'Auto3DSeg',
};

export const settings = {
  data: {
    value: '<dir>',
    about: 'folder of databases, results and certificate',
    defaultText: 'the user’s data folder',
  },
  database: {
    value: '<address>',
    about:
      'PostgreSQL database of several servers, postgres://USER@HOST/DATABASE, or a file that holds this with a password',
    defaultText: 'server.db in the data folder',
  },
  blobs: {
    value: '<place>',
    about:
      'folder or S3 bucket (s3://BUCKET/PREFIX?endpoint=URL) of volumes and results that all servers of the database share',
    defaultText: 'blobs in the data folder',
  },
  maxCacheBytes: {
    value: '<number>',
    about:
      'bytes of files of a bucket that are kept on this machine, too; the least recently used leave first',
    default: 20 * 1024 ** 3,
    defaultText: '20 GiB',
  },
  deleteAfterSeconds: {
    value: '<number>',
    about: 'how long files that servers share (--blobs) stay after nothing refers to them',
    default: 60,
  },
  host: { value: '<address>', about: 'address to listen on', default: '127.0.0.1' },
  port: { value: '<number>', about: 'HTTP port of the server; 0: a free one', default: 9000 },
  tlsPort: { value: '<number>', about: 'HTTPS port of the server', default: 9443 },
  registryPort: { value: '<number>', about: 'port of the registry', default: 8001 },
  gatewayPort: { value: '<number>', about: 'port of the gateway', default: 9100 },
  tlsCert: { value: '<file>', about: 'certificate (PEM) instead of a self-signed one' },
  tlsKey: { value: '<file>', about: 'its key (PEM)' },
  announce: { value: '<url>', about: 'announce the services to this registry', isList: true },
  announceKey: {
    value: '<key>',
    about: 'key for announcing (better in the variable TOMAAT_ANNOUNCE_KEY); also --api-key',
  },
  publicUrl: {
    value: '<url>',
    about: 'address at which others reach the server, such as that of a proxy in front of it',
  },
  registryPublicUrl: {
    value: '<url>',
    about: 'address at which others reach the registry, such as that of a proxy in front of it',
  },
  ca: {
    value: '<file>',
    about:
      'more certificates (PEM) to trust: of registries, of servers to which the registry forwards requests, and of model servers',
  },
  default: { value: '<id>', about: 'service that TOMAAT v1 clients get', defaultText: 'the first' },
  allowNet: {
    value: '<range>',
    about:
      'network to which the registry may forward requests and in which apps may use model servers, such as 10.1.0.0/16',
    isList: true,
  },
  modelServerKeys: {
    hasNoFlag: true,
    isList: true,
    about: 'keys for model servers, each as HOST:PORT=KEY',
  },
  oidcIssuer: {
    value: '<url>',
    about: 'OpenID Connect issuer for logins (its client secret: TOMAAT_OIDC_CLIENT_SECRET)',
  },
  oidcClientId: { value: '<id>', about: 'client id of this server at that issuer' },
  oidcClientSecret: { hasNoFlag: true, about: 'client secret of this server at that issuer' },
  oidcScopes: {
    value: '<list>',
    about: 'scopes to request from the issuer',
    default: ['openid', 'profile', 'email'],
  },
  oidcAllow: {
    value: '<CLAIM=VALUE>',
    about: 'serve only users whose token has this claim, such as groups=radiology',
    isList: true,
    defaultText: 'all',
  },
  oidcAdmin: {
    value: '<CLAIM=VALUE>',
    about: 'users whose token has this claim have every permission',
    isList: true,
  },
  oidcAudience: {
    value: '<name>',
    about: 'accept tokens of the issuer for this audience from programs',
    defaultText: 'none are accepted',
  },
  contact: {
    value: '<text>',
    about: 'who gives access here, shown on the login page: text, an email address or an https address',
  },
  login: { about: 'admit only callers with a key (tomaat keys) or a login' },
  tlsSelfMade: { about: 'listen beyond this machine with the self-signed certificate' },
  allowHost: { value: '<name>', about: 'another host name of this machine', isList: true },
  allowOrigin: {
    value: '<origin>',
    about: 'other site whose pages may send requests, such as https://viewer.example',
    isList: true,
  },
  faces: {
    value: '<list>',
    about: `other programs’ protocols to serve: ${faceNames.slice(1).join(', ')}; with ${faceNames[0]} also what the legacy port serves`,
    defaultText: 'none',
  },
  legacyPort: {
    value: '<number>',
    about: 'open a port for clients that cannot log in, of TOMAAT v1 or of --faces; 0: a free one',
  },
  registryLegacyPort: { value: '<number>', about: 'the same for the registry: TOMAAT v1 without login' },
  legacyPerMinute: {
    value: '<number>',
    about: 'requests per minute that one address may send to a legacy port',
    default: 60,
  },
  dicomweb: {
    value: '<url>',
    about:
      'DICOMweb root of the archive from which series are fetched for OHIF, such as https://pacs.example/dicom-web',
  },
  dicomwebCredentials: {
    hasNoFlag: true,
    about: 'login of this server at that archive: USER:PASSWORD, or a bearer token',
  },
  maxUploadBytes: {
    value: '<number>',
    about: 'largest upload',
    default: 2 * 1024 ** 3,
    defaultText: '2 GiB',
  },
  minBytesPerSecond: {
    value: '<number>',
    about: 'slowest pace of a client that sends an upload or fetches a result',
    default: 8192,
    special: '0: any',
  },
  maxVoxels: {
    value: '<number>',
    about: 'largest volume',
    default: 2 ** 30,
    defaultText: '2^30 voxels',
  },
  maxQueued: { value: '<number>', about: 'most waiting predictions', default: 1000 },
  workers: { value: '<number>', about: 'concurrent predictions; 0: all by “tomaat worker”', default: 1 },
  device: {
    value: '<name>',
    about: 'what computes networks: cpu, cuda, cuda:0,1 (one prediction at a time on each card) or webgpu',
    default: ['cpu'],
    defaultText: 'cpu',
  },
  rewrite: {
    isOn: true,
    about: 'compute networks as their files have them, without faster forms of their operators',
  },
  drainSeconds: {
    value: '<number>',
    about: 'how long running predictions may continue at the stop',
    default: 20,
  },
  memoryMb: {
    value: '<number>',
    about: 'memory of one prediction if its app sets no limit, MB',
    defaultText: 'a share of the machine’s',
    special: '0: no limit',
  },
  maxIdleMb: {
    value: '<number>',
    about: 'memory that idle models may take',
    defaultText: 'a quarter of the machine’s',
  },
  allowIdentity: {
    value: '<policy>',
    about:
      'accept DICOM files that name a patient: yes, no, or local (only while no other machine can get them)',
    default: 'yes',
  },
  stripInputs: { about: 'remove text that may identify the patient from inputs before they are stored' },
  withholdModels: {
    about: 'give no model to callers, even where its author allows that they compute it themselves (compute)',
  },
  keepMinutes: { value: '<number>', about: 'how long results are kept', default: 60 },
  logLevel: { value: '<level>', about: `${logLevels.slice(0, -1).join(', ')} or silent`, default: 'info' },
} as const satisfies Record<string, Setting>;

/** The server and the registry on this machine, if no port was set. */
export const defaultServer = `http://${settings.host.default}:${settings.port.default}`;
export const defaultRegistry = `http://${settings.host.default}:${settings.registryPort.default}`;

/** `tlsPort` as in its flag: `tls-port`. */
export const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** The setting in one line, with its default: for help texts. */
export function describeSetting({ about, isList, default: value, defaultText, special }: Setting): string {
  const standard = defaultText ?? (value === undefined ? undefined : String(value));
  const notes = [standard && `default: ${standard}`, special].filter(Boolean).join('; ');
  return [about, isList && '; may be repeated', notes && ` (${notes})`].filter(Boolean).join('');
}
