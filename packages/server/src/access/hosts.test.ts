import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import {
  createHostPolicy,
  type HostOptions,
  type HostPolicy,
  isNamedBy,
  isNavigation,
  requireSafeBind,
} from './hosts.ts';

interface Asked {
  headers?: Record<string, string | undefined>;
  url?: string;
  method?: string;
  httpVersion?: string;
  localAddress?: string;
  encrypted?: boolean;
}

/** The parts of a request that count here, as Node gives them. */
function requestOf({ headers = {}, localAddress = '127.0.0.1', encrypted, ...rest }: Asked): IncomingMessage {
  const socket = { localAddress, ...(encrypted && { encrypted }) };
  return { method: 'GET', url: '/', httpVersion: '1.1', ...rest, headers, socket } as never;
}

/** What a check throws; undefined if it passes. */
function faultOf(check: () => void): { code: string; message: string; field?: string } | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return error as never;
  }
}

const hostFault = (policy: HostPolicy, host: string | undefined, asked: Asked = {}) =>
  faultOf(() => policy.checkHost(requestOf({ ...asked, headers: { host } })));
const answersTo = (options: HostOptions, host: string, asked: Asked = {}) =>
  hostFault(createHostPolicy(options), host, asked) === undefined;

describe('createHostPolicy() and the name of the server', () => {
  it.each([
    'localhost',
    'LocalHost:9000',
    '127.0.0.1',
    '127.0.0.1:9000',
    '127.255.255.254:65535',
    '[::1]',
    '[::1]:9000',
    '[0:0:0:0:0:0:0:1]',
  ])('answers to %s, which always means this machine', (host) => {
    expect(answersTo({}, host)).toBe(true);
    expect(answersTo({ host: '192.0.2.5' }, host)).toBe(true);
  });

  it.each([
    '',
    'evil.example',
    'localhost.evil.example',
    'evil-localhost',
    'localhost.',
    '127.0.0.1.evil.example',
    '128.0.0.1',
    '126.255.255.255',
    '0.0.0.0',
    '[::]',
    '[::2]',
    '::1',
    '[127.0.0.1]:1x',
    'localhost:',
    'localhost:123456',
    'localhost:9000:1',
    'localhost/x',
    'localhost evil.example',
    'user@localhost',
    '[::1',
  ])('refuses the name %j, with the remedy', (host) => {
    const fault = hostFault(createHostPolicy({}), host);
    expect(fault).toMatchObject({ code: 'MISDIRECTED', field: 'Host' });
    expect(fault!.message).toContain(`'${host}'`);
  });

  it('names the host to allow without port, in at most 100 characters', () => {
    const policy = createHostPolicy({});
    expect(hostFault(policy, 'Evil.Example:80')!.message).toContain('--allow-host evil.example or');
    expect(hostFault(policy, 'a b')!.message).toContain('--allow-host NAME or');
    expect(hostFault(policy, `${'x'.repeat(100)}y`)!.message).toContain(`'${'x'.repeat(100)}'`);
  });

  it('on loopback accepts neither machine names nor the connection’s address', () => {
    for (const options of [{}, { host: '127.0.0.1' }, { host: 'localhost' }, { host: '::1' }]) {
      const here = { ...options, machineNames: ['scanner'] };
      expect(answersTo(here, 'scanner')).toBe(false);
      expect(answersTo(here, '192.0.2.5', { localAddress: '192.0.2.5' })).toBe(false);
    }
  });

  it('beyond loopback accepts the machine’s names and the connection’s local address', () => {
    const beyond = { host: '0.0.0.0', machineNames: ['Scanner', '192.0.2.5'] };
    for (const host of ['scanner', 'SCANNER:9443', '192.0.2.5:1']) expect(answersTo(beyond, host)).toBe(true);
    expect(answersTo({ host: '0.0.0.0' }, 'scanner')).toBe(false);
    expect(answersTo(beyond, '0.0.0.0')).toBe(false);
    expect(answersTo({ host: '::' }, '[::]')).toBe(false);
    expect(answersTo({ host: '192.0.2.7' }, '192.0.2.7')).toBe(true);
    expect(answersTo({ host: 'Name.Example' }, 'name.example')).toBe(true);
    expect(answersTo({ host: '[2001:db8::7]' }, '[2001:db8::7]:1')).toBe(true);
  });

  it.each([
    ['192.0.2.5', '192.0.2.5', true],
    ['192.0.2.5', '::ffff:192.0.2.5', true],
    ['192.0.2.5', '::FFFF:192.0.2.5', true],
    ['[::ffff:192.0.2.5]', '192.0.2.5', true],
    ['192.0.2.5', '192.0.2.50', false],
    ['[2001:DB8:0:0::1]', '2001:db8::1', true],
    ['[2001:db8::1]', '2001:db8::2', false],
    ['[fe80::1]', 'fe80::1%eth0', true],
    ['[fe80::1]', 'fe80::1%eth0%1', true],
    ['192.0.2.5', undefined, false],
    ['scanner', 'scanner', false],
  ])('beyond this machine, %s on a connection to %s: %s', (host, localAddress, expected) => {
    const request = requestOf({ headers: { host } });
    Object.assign(request.socket, { localAddress });
    const fault = faultOf(() => createHostPolicy({ host: '0.0.0.0' }).checkHost(request));
    expect(fault === undefined).toBe(expected);
  });

  it('answers to the public address, allowed hosts and the certificate’s current names', () => {
    let names = ['a.example', '*.b.example'];
    const policy = createHostPolicy({
      publicUrl: 'https://Public.example:8443/tomaat',
      allowHost: ['Alias', '[2001:db8::9]'],
      certificateNames: () => names,
    });
    const answers = (host: string) => hostFault(policy, host) === undefined;
    const ours = ['public.example', 'alias:1', '[2001:db8::9]', 'a.example', 'x.b.example:1'];
    for (const host of ours) expect(answers(host), host).toBe(true);
    for (const host of ['b.example', 'x.a.example', 'tomaat']) expect(answers(host), host).toBe(false);
    names = [];
    expect(answers('a.example')).toBe(false);
  });

  it('refuses a request without a name, but one of HTTP/1.0', () => {
    const policy = createHostPolicy({});
    expect(hostFault(policy, undefined)).toMatchObject({ code: 'MISDIRECTED' });
    expect(hostFault(policy, undefined, { httpVersion: '1.0' })).toBeUndefined();
    expect(hostFault(policy, undefined, { httpVersion: '1.0', url: '*' })).toBeDefined();
    expect(hostFault(policy, undefined, { httpVersion: '1.0', url: undefined })).toBeDefined();
    expect(hostFault(policy, undefined, { httpVersion: '1.0', url: 'http://localhost/' })).toBeDefined();
    expect(hostFault(policy, 'evil.example', { httpVersion: '1.0' })).toBeDefined();
    expect(hostFault(policy, 'localhost', { url: undefined })).toBeUndefined();
  });

  it.each([
    ['http://localhost:1/x', true],
    ['HTTPS://127.0.0.1?x', true],
    ['http://evil.example/', false],
    ['http://evil.example', false],
    ['a+b.c-d://evil.example/x', false],
    ['http://localhost@evil.example/', false],
    ['http:///x', false],
    // A path, though an address is in it.
    ['/http://evil.example/', true],
  ])('compares the address in the request line %s too: %s', (url, expected) => {
    expect(answersTo({}, 'localhost', { url })).toBe(expected);
    expect(answersTo({}, 'evil.example', { url })).toBe(false);
  });
});

describe('createHostPolicy() and the page that asks', () => {
  const policy = createHostPolicy({
    publicUrl: 'https://public.example/tomaat',
    allowOrigin: ['https://viewer.example/', 'http://viewer.example:8080'],
  });
  const host = 'localhost:9000';
  const originFault = (origin: string, asked: Asked = {}) =>
    faultOf(() =>
      policy.checkOrigin(requestOf({ ...asked, headers: { host, ...asked.headers, origin } }), true),
    );

  it.each([
    'https://public.example',
    'https://viewer.example',
    'http://viewer.example:8080',
    'http://localhost:9000',
  ])('lets the page of %s in', (origin) => {
    expect(originFault(origin)).toBeUndefined();
  });

  it.each([
    'null',
    '',
    'https://evil.example',
    'http://public.example',
    'https://viewer.example:8443',
    'https://viewer.example/',
    'http://localhost',
    'http://localhost:9001',
    'https://localhost:9000',
    'http://127.0.0.1:9000',
  ])('refuses the page of %j', (origin) => {
    expect(originFault(origin)).toMatchObject({ code: 'FORBIDDEN', field: 'Origin' });
  });

  it('knows its own page by scheme, name and port', () => {
    expect(originFault('https://localhost:9000', { encrypted: true })).toBeUndefined();
    expect(originFault('http://localhost:9000', { encrypted: true })).toBeDefined();
    expect(originFault('http://localhost', { headers: { host: 'localhost:80' } })).toBeUndefined();
    expect(originFault('http://x', { headers: { host: undefined } })).toBeDefined();
    expect(originFault('http://x', { headers: { host: 'not a host' } })).toBeDefined();
  });

  it('explains how to allow a page, shown without special characters', () => {
    const message = originFault('https://evil.example\u0000\n ä\u007f')!.message;
    expect(message).toContain('the page https://evil.example, which');
    expect(message).toContain('--public-url https://evil.example.');
    expect(message).toContain('--allow-origin https://evil.example.');
    expect(originFault('null')!.message).toContain('--allow-origin ORIGIN.');
    const long = `https://${'x'.repeat(92)}`;
    expect(originFault(`${long}y`)!.message).toContain(`the page ${long}, which`);
  });

  it.each([
    ['https://viewer.example', 'https://viewer.example'],
    ['https://public.example', 'https://public.example'],
    ['https://evil.example', undefined],
    ['http://localhost:9000', undefined],
    [undefined, undefined],
  ])('of the page of %s the allowed origin is %s', (origin, expected) => {
    expect(policy.allowedOrigin(requestOf({ headers: { host, origin } }))).toBe(expected);
  });

  it('needs no permission for its own page, even if allowed by name', () => {
    const request = requestOf({
      headers: { host: 'viewer.example', origin: 'https://viewer.example' },
      encrypted: true,
    });
    expect(policy.allowedOrigin(request)).toBeUndefined();
    expect(faultOf(() => policy.checkOrigin(request, false))).toBeUndefined();
  });

  const navigation = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
  it.each([
    [undefined, {}, false, true],
    ['same-origin', {}, false, true],
    ['none', {}, false, true],
    ['same-site', {}, true, false],
    ['cross-site', {}, true, false],
    ['', {}, true, false],
    ['cross-site', navigation, true, true],
    ['same-site', navigation, true, true],
    ['cross-site', navigation, false, false],
    ['cross-site', { ...navigation, 'sec-fetch-dest': 'iframe' }, true, false],
  ])('without Origin: site %j, headers %j, page link %s: admitted %s', (site, more, leadsHere, expected) => {
    const request = requestOf({ headers: { host, 'sec-fetch-site': site, ...more } });
    const fault = faultOf(() => policy.checkOrigin(request, leadsHere));
    expect(fault === undefined).toBe(expected);
    if (fault) expect(fault).toMatchObject({ code: 'FORBIDDEN', field: 'Origin' });
  });

  it.each([
    ['http://localhost:9000/jobs?x', true],
    ['https://viewer.example/deep/page', true],
    ['https://public.example/', true],
    ['http://localhost:9001/', false],
    ['https://evil.example/', false],
    ['https://viewer.example.evil.example/', false],
    ['no address', false],
    ['', false],
  ])('checkPage() of a page at %s: %s', (address, expected) => {
    const fault = faultOf(() => policy.checkPage(requestOf({ headers: { host } }), address));
    expect(fault === undefined).toBe(expected);
    if (fault) expect(fault.code).toBe('FORBIDDEN');
  });
});

describe('isNavigation()', () => {
  it('is GET of a browser that goes to a whole document', () => {
    const headers = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
    expect(isNavigation(requestOf({ headers }))).toBe(true);
    expect(isNavigation(requestOf({ headers, method: 'POST' }))).toBe(false);
    expect(isNavigation(requestOf({ headers: { ...headers, 'sec-fetch-mode': 'cors' } }))).toBe(false);
    expect(isNavigation(requestOf({ headers: { ...headers, 'sec-fetch-dest': 'image' } }))).toBe(false);
    expect(isNavigation(requestOf({}))).toBe(false);
  });
});

describe('isNamedBy()', () => {
  it.each([
    ['a.example', 'a.example'],
    ['A.Example.', 'a.example'],
    ['a.example', 'A.EXAMPLE.'],
    ['*.a.example', 'x.a.example'],
    ['*.A.example.', 'Server-1.a.Example.'],
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '0:0:0:0:0:0:0:1'],
    ['192.0.2.1', '::ffff:192.0.2.1'],
  ])('%s names %s', (pattern, host) => {
    expect(isNamedBy(pattern, host)).toBe(true);
  });

  it.each([
    ['a.example', 'x.a.example'],
    ['x.a.example', 'a.example'],
    ['*.a.example', 'a.example'],
    ['*.a.example', '.a.example'],
    ['*.a.example', 'x.y.a.example'],
    ['*.a.example', 'x.b.example'],
    ['*.a.example', 'xa.example'],
    ['*.a.example', 'x.a.example.evil.example'],
    // Half of the names of the world.
    ['*.example', 'a.example'],
    ['*.', 'a.'],
    ['*', 'a'],
    ['x*.a.example', 'xy.a.example'],
    ['a.*.example', 'a.b.example'],
    // An address has no labels.
    ['*.0.0.1', '127.0.0.1'],
    ['127.0.0.1', '127.0.0.2'],
    ['127.0.0.1', 'a.example'],
    ['::1', '::2'],
    ['a.example', '127.0.0.1'],
  ])('%s does not name %s', (pattern, host) => {
    expect(isNamedBy(pattern, host)).toBe(false);
  });
});

describe('requireSafeBind()', () => {
  const messageOf = (host: string, login: boolean | undefined, tlsChosen: boolean) => {
    const fault = faultOf(() => requireSafeBind({ host, login, tlsChosen }));
    if (fault) expect(fault.code).toBe('BAD_REQUEST');
    return fault?.message;
  };

  it('lets a server on this machine alone be open', () => {
    for (const host of ['127.0.0.1', '127.1.2.3', '::1', '[::1]', 'localhost'])
      expect(messageOf(host, undefined, false), host).toBeUndefined();
  });

  it.each(['0.0.0.0', '::', '128.0.0.1', '192.0.2.1', 'scanner'])(
    'needs login and certificate at %s',
    (host) => {
      const certificate = '--tls-self-made (or --tls-cert and --tls-key)';
      expect(messageOf(host, true, true)).toBeUndefined();
      expect(messageOf(host, undefined, false)).toContain(
        `read its traffic. Give --login and ${certificate}, or`,
      );
      expect(messageOf(host, true, false)).toContain(`Give ${certificate}, or`);
      expect(messageOf(host, false, true)).toContain('could use the server. Give --login, or');
      expect(messageOf(host, false, true)).toContain(`${host} is reachable from other machines`);
    },
  );
});
