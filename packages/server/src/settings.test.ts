import { describe, expect, it } from 'vitest';
import { configSchema, loadConfig } from './config.ts';
import { defaultRegistry, describeSetting, kebab, type Setting, settings } from './settings.ts';

describe('settings', () => {
  it('are those of the configuration, and say what holds where nothing is set', () => {
    expect(Object.keys(settings)).toEqual(Object.keys(configSchema.shape));
    const { config } = loadConfig({ flags: { data: '/nowhere/tomaat' }, env: {} });
    for (const [key, setting] of Object.entries<Setting>(settings)) {
      const value = config[key as keyof typeof config];
      if (key === 'data') continue;
      if (setting.default !== undefined) expect(value, key).toEqual(setting.default);
      else expect([undefined, setting.isOn ?? false, []], key).toContainEqual(value);
    }
    expect(defaultRegistry).toBe('http://127.0.0.1:8001');
  });
});

describe('describeSetting()', () => {
  it('states the default, in words if defined, and any special value', () => {
    expect(describeSetting(settings.port)).toBe('HTTP port of the server; 0: a free one (default: 9000)');
    expect(describeSetting(settings.oidcScopes)).toMatch(/ \(default: openid,profile,email\)$/);
    expect(describeSetting(settings.maxUploadBytes)).toBe('largest upload (default: 2 GiB)');
    expect(describeSetting(settings.minBytesPerSecond)).toMatch(/ \(default: 8192; 0: any\)$/);
    expect(describeSetting(settings.oidcAllow)).toMatch(/; may be repeated \(default: all\)$/);
    expect(describeSetting(settings.tlsKey)).toBe('its key (PEM)');
  });
});

describe('kebab()', () => {
  it('gives the name of a flag', () => {
    expect(['tlsPort', 'oidcClientId', 'data'].map(kebab)).toEqual(['tls-port', 'oidc-client-id', 'data']);
  });
});
