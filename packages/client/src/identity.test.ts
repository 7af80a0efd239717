import { describe, expect, it } from 'vitest';
import type { Processing } from './contract/services.ts';
import { decideIdentity, type IdentityFacts } from './identity.ts';

const here: Processing = {
  reach: 'loopback',
  machine: 'a',
  ports: [9000, 9443],
  remoteWorkers: false,
  identity: 'allowed',
  stripsInputs: false,
};
const local: IdentityFacts = { processing: here, address: 'http://127.0.0.1:9000', machine: 'a' };
const other = (change: Partial<Processing>): IdentityFacts => ({
  ...local,
  processing: { ...here, ...change },
});

describe('decideIdentity()', () => {
  // What is known; whether the files are de-identified; whether they may be kept.
  it.each<[string, IdentityFacts, boolean, boolean]>([
    ['the same machine', local, false, true],
    ['localhost', { ...local, address: 'https://localhost:9443/x' }, false, true],
    ['IPv6', { ...local, address: 'http://[::1]:9000' }, false, true],
    ['one that strips', other({ stripsInputs: true }), false, true],
    ['an older server', { ...local, processing: undefined }, true, true],
    ['a network address', { ...local, address: 'https://10.0.0.5:9443' }, true, true],
    ['a name like loopback', { ...local, address: 'http://127.0.0.1.example:9000' }, true, true],
    ['no address', { ...local, address: 'here' }, true, true],
    ['a server on the network', other({ reach: 'network', machine: undefined }), true, true],
    ['remote workers', other({ remoteWorkers: true }), true, true],
    ['a model server elsewhere', other({ modelServers: ['triton:8001'] }), true, true],
    ['a tunnel to another machine', other({ machine: 'b' }), true, true],
    ['a server without its machine', other({ machine: undefined }), true, true],
    ['a browser', { ...local, machine: undefined }, true, true],
    ['two unknown machines', { ...other({ machine: undefined }), machine: undefined }, true, true],
    ['a proxy on this machine', { ...local, address: 'http://127.0.0.1:8080' }, true, true],
    ['the usual port', { ...local, address: 'http://127.0.0.1' }, true, true],
    ['a server without its ports', other({ ports: undefined }), true, true],
    ['a policy against it', other({ identity: 'refused' }), true, false],
    ['kept on the network', { ...other({ reach: 'network' }), wanted: 'keep' }, false, true],
    ['kept at an older server', { ...local, processing: undefined, wanted: 'keep' }, false, true],
    ['removed here', { ...local, wanted: 'remove' }, true, true],
    ['removed by policy', { ...other({ identity: 'refused' }), wanted: 'remove' }, true, false],
  ])('decides for %s', (_, facts, deidentify, mayKeep) => {
    expect(decideIdentity(facts)).toMatchObject({ deidentify, mayKeep });
  });

  it('refuses to keep what the server refuses', () => {
    const facts: IdentityFacts = { ...other({ identity: 'refused' }), wanted: 'keep' };
    expect(() => decideIdentity(facts)).toThrow(/does not accept DICOM files that name a patient/);
  });

  it.each<[IdentityFacts, RegExp]>([
    [local, /computes on this machine alone/],
    [{ ...local, processing: undefined }, /does not say where it computes/],
    [other({ reach: 'network' }), /reached from other machines/],
    [other({ remoteWorkers: true }), /workers on other machines/],
    [other({ modelServers: ['triton:8001'] }), /a model server on another machine/],
    [other({ machine: 'b' }), /runs on another machine/],
    [{ ...local, machine: undefined }, /not known whether the server runs on this machine/],
    [{ ...local, address: 'http://127.0.0.1:8080' }, /something is between here and the server/],
    [other({ identity: 'refused' }), /does not accept files/],
  ])('says why', (facts, reason) => {
    expect(decideIdentity(facts).reason).toMatch(reason);
  });
});
