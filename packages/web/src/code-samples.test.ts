import { execFileSync } from 'node:child_process';
import type { Service } from '@tomaat/client';
import { describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { codeSamples } from './code-samples.ts';

const python = findPython();

function sampleOf(tab: string, inputs: string[], output = 'LabelVolume'): string {
  const service = {
    id: 'odd',
    task: 'segmentation',
    anatomy: 'brain',
    default: true,
    inputs: inputs.map((name) => ({ name, type: 'volume', label: name })),
    outputs: [{ name: 'found', type: output, label: 'Found', primary: true }],
  } as unknown as Service;
  const values = { 'it\'s "odd" ü\\': 'a\nb', seeds: [[1, -2, 3]] as [number, number, number][], on: true };
  return codeSamples(service, 'http://127.0.0.1:9000', values).find(({ name }) => name === tab)!.code;
}

describe('codeSamples', () => {
  it.skipIf(!python)('opens each file under a variable of its own, whatever the inputs are called', () => {
    const code = sampleOf('requests', ['class', 'requests', 'response', 't1', 'T1', 't-1', 't_1']);
    // Compiles, and assigns none of the names that the sample needs.
    const script = `
import ast, sys
tree = ast.parse(sys.stdin.read())
opened = [item.optional_vars.id for item in tree.body[1].items]
assert len(set(opened)) == 7, opened
assert not {"requests", "response", "f", "os", "open"} & set(opened), opened
`;
    expect(() => execFileSync(python!, ['-c', script], { input: code, stdio: 'pipe' })).not.toThrow();
  });

  it('saves what the service gives, not always a label map', () => {
    for (const tab of ['Python', 'requests', 'curl', 'JavaScript', 'Command line']) {
      expect(sampleOf(tab, ['volume'])).toContain('segmentation.nii.gz');
      const points = sampleOf(tab, ['volume'], 'Fiducials');
      expect(points).toContain('result.json');
      expect(points).not.toMatch(/segmentation\.nii\.gz|volumes/);
      expect(sampleOf(tab, ['volume'], 'TransformBSpline')).toContain('result.h5');
    }
  });
});
