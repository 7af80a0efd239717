import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { labelCodes } from '../packages/core/src/labels/label-codes.ts';
import { findPython } from './programs.ts';

/* The codes that labels get by their names, as DICOM's own context groups have them: pydicom holds those of PS3.16. */

const python = findPython('pydicom');
const program = `
import json
from pydicom.sr._concepts_dict import concepts
found = {}
for codes in concepts["SCT"].values():
    for code, (meaning, groups) in codes.items():
        found.setdefault(code, []).append(meaning)
print(json.dumps(found))
`;

describe.skipIf(!python)('the codes of labels', () => {
  it('are DICOM’s, with its meanings', () => {
    const dicom: Record<string, string[]> = JSON.parse(
      execFileSync(python!, ['-c', program], { encoding: 'utf8', maxBuffer: 64e6 }),
    );
    const unlike = labelCodes.filter(([code, meaning]) => !dicom[code]?.includes(meaning));
    expect(unlike).toEqual([]);
  });
});
