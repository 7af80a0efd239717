import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('../scripts/check-regexes.ts', import.meta.url));

describe('check-regexes.ts', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-regexes-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function check(name: string, source: string): Promise<{ code: number; text: string }> {
    const file = join(folder, name);
    await writeFile(file, source);
    return new Promise((resolve, reject) => {
      execFile(process.execPath, [script, file], (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number') reject(error);
        else resolve({ code: Number(error?.code ?? 0), text: stdout + stderr });
      });
    });
  }

  it('finds every slow expression, however it is written', { timeout: 120_000 }, async () => {
    const slow = [
      'const a: RegExp = /^(a+)+$/;',
      'const b = <T,>(text: T) => /\\/+$/.test(String(text));',
      "const c = new RegExp('^(\\\\d+\\\\.?\\\\d*|\\\\.\\\\d+)$', 'i');",
      'const d = RegExp(`\\\\s+$`);',
      'const e = new globalThis.RegExp("a*a*b");',
      'const f = (text: string, made: string) => new RegExp(made).test(text);',
      "const g = (text: string) => text.match('x*$');",
      "const h = (text: string, made: string) => text.search(made + 'x');",
      'const i = (text: string) => text.split(/(a|a)*b/);',
      'const j = { pattern: /^(?=a)(a|b)*\\1$/ } as const;',
      'enumerable: for (const k of [/(.*)(.*)x/s]) { void k; break enumerable; }',
    ];
    const { code, text } = await check('slow.ts', slow.join('\n'));
    expect(code).toBe(1);
    for (let line = 1; line <= slow.length; line++) expect(text).toContain(`slow.ts:${line}: `);
    expect(text).toContain('/^(a+)+$/ takes exponential time');
    expect(text).toContain('takes polynomial time of degree 2');
  });

  it('looks into the expressions of TSX', { timeout: 120_000 }, async () => {
    const { code, text } = await check(
      'page.tsx',
      'export const Page = ({ name }: { name: string }) => <p title="/(b+)+$/">{/(a+)+$/.test(name) ? 1 : 2}</p>;',
    );
    expect(code).toBe(1);
    expect(text).toContain('page.tsx:1: /(a+)+$/ takes exponential time');
    expect(text).not.toContain('(b+)+');
  });

  it('passes what takes linear time, and what only looks like an expression', {
    timeout: 120_000,
  }, async () => {
    const { code, text } = await check(
      'fast.ts',
      [
        "const a = '/^(a+)+$/'; // /^(a+)+$/",
        'const b = (x: number, y: number) => x / 2 + y / (x + 1) + 3;',
        'const c = /^[+-]?(?:\\d+(?:\\.\\d*)?|\\.\\d+)$/i;',
        'const d = /^\\s*"[^"]*"$/;',
        'const f = (text: string) => text.match(c)?.[0].search(d);',
        "const g = ['x'].includes('(a+)+$') && 'x'.replace('(a+)+$', '');",
      ].join('\n'),
    );
    expect(text).toContain('take linear time.');
    expect(code).toBe(0);
  });
});
