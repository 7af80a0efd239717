import { describe, expect, it } from 'vitest';
import { dicomFile, type Elements, type Slice, sliceElements } from '../../test/dicom-files.ts';
import { sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { readDicomHeader } from './dicom-files.ts';
import { displayOf } from './display.ts';
import { imagesOf } from './frames.ts';

/** What the last image of a file says. */
async function displayIn(more: Slice['more']) {
  const header = await readDicomHeader(
    sourceFromBytes('IM0', dicomFile(sliceElements({ more }))),
    webPlatform,
  );
  if (!('dicom' in header)) throw new Error('it was not read');
  return displayOf(imagesOf(header).at(-1)!);
}

const center = 0x00281050;
const width = 0x00281051;
const type = 0x00281054;
const explanation = 0x00281055;
const voi = 0x00289132;
const transformation = 0x00289145;
const shared = 0x52009229;
const perFrame = 0x52009230;

describe('displayOf()', () => {
  it('gives the windows in order, with their names and the unit', async () => {
    const more = {
      [center]: ['DS', '40\\-600 '],
      [width]: ['DS', '400\\1500'],
      [type]: ['LO', 'HU'],
      [explanation]: ['LO', 'ABDOMEN\\LUNG'],
    } as const;
    expect(await displayIn(more)).toEqual({
      windows: [
        { level: 40, width: 400, name: 'ABDOMEN' },
        { level: -600, width: 1500, name: 'LUNG' },
      ],
      units: 'HU',
    });
  });

  it('is empty for a file without them', async () => {
    expect(await displayIn({})).toEqual({ windows: [], units: undefined });
  });

  it('leaves out malformed windows instead of refusing the image', async () => {
    const windowsOf = async (centers: string, widths: string) =>
      (await displayIn({ [center]: ['DS', centers], [width]: ['DS', widths] })).windows;
    expect(await windowsOf('40\\50', '0\\350')).toEqual([{ level: 50, width: 350, name: undefined }]);
    expect(await windowsOf('40\\50', '400')).toEqual([{ level: 40, width: 400, name: undefined }]);
    expect(await windowsOf('nan', '400')).toEqual([]);
    expect(await windowsOf('40', '-400')).toEqual([]);
    const many = Array.from({ length: 500 }, (_, i) => String(i + 1)).join('\\');
    expect(await windowsOf(many, many)).toHaveLength(8);
  });

  it('reads a frame’s own window before the shared one and the file’s', async () => {
    const window = (level: string): Elements => [
      [center, 'DS', level],
      [width, 'DS', '100'],
    ];
    const groups = {
      2621448: ['IS', '2'],
      [center]: ['DS', '1'],
      [width]: ['DS', '10'],
      [shared]: [
        'SQ',
        [
          [
            [voi, 'SQ', [window('20')]],
            [transformation, 'SQ', [[[type, 'LO', 'US']]]],
          ],
        ],
      ],
    } as const;
    const own = [[], [[voi, 'SQ', [window('30')]]]] as const;
    const found = await displayIn({ ...groups, [perFrame]: ['SQ', own] });
    expect(found).toEqual({ windows: [{ level: 30, width: 100, name: undefined }], units: 'US' });
    expect((await displayIn({ ...groups, [perFrame]: ['SQ', [[], []]] })).windows).toMatchObject([
      { level: 20 },
    ]);
  });
});
