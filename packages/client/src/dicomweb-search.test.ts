import { describe, expect, it } from 'vitest';
import {
  dicomItems,
  dicomNumber,
  dicomText,
  dicomTexts,
  dicomValues,
  toDatasets,
  toStudy,
} from './dicom-json.ts';
import { createDicomWeb } from './dicomweb.ts';

/** A service whose answers are given by a function of the address that is asked for. */
function answering(
  answer: (url: URL) => { json?: unknown; text?: string; headers?: Record<string, string> },
) {
  const asked: URL[] = [];
  const fetch = async (input: string | URL | Request) => {
    const url = new URL(String(input));
    asked.push(url);
    const { json, text = JSON.stringify(json), headers } = answer(url);
    return new Response(text, { headers: { 'content-type': 'application/dicom+json', ...headers } });
  };
  return { asked, web: createDicomWeb({ url: 'http://pacs.example/dicom-web', fetch, retries: 0 }) };
}

const study = (uid: string) => ({ '0020000D': { vr: 'UI', Value: [uid] } });
const many = Array.from({ length: 250 }, (_, index) => study(`1.2.${index}`));
const page = (url: URL, max = 1000) => {
  const offset = Number(url.searchParams.get('offset'));
  return many.slice(offset, offset + Math.min(max, Number(url.searchParams.get('limit'))));
};
const uids = (studies: readonly { studyInstanceUid: string }[]) =>
  studies.map((each) => each.studyInstanceUid);

describe('searchStudies()', () => {
  it('sends search terms by keyword, in an encoding that servers read', async () => {
    const { web, asked } = answering(() => ({ json: [] }));
    await web.searchStudies(
      {
        study: '1.2',
        patientName: 'DOE^J*',
        patientId: 'a b&c=d',
        accessionNumber: '7',
        studyDate: '20240101-20240131',
        studyDescription: 'head',
        modality: 'MR',
        attributes: { StationName: 'x', '00081060': 'y', '00400275.00400009': 3 },
      },
      { includeFields: ['StationName', '0008103e', 'StudyDescription'] },
    );
    expect(asked.map(({ pathname }) => pathname)).toEqual(['/dicom-web/studies']);
    expect(asked[0].search).toContain('PatientID=a%20b%26c%3Dd');
    expect([...asked[0].searchParams]).toEqual([
      ['StudyInstanceUID', '1.2'],
      ['PatientID', 'a b&c=d'],
      ['PatientName', 'DOE^J*'],
      ['AccessionNumber', '7'],
      ['StudyDate', '20240101-20240131'],
      ['StudyDescription', 'head'],
      ['ModalitiesInStudy', 'MR'],
      ['StationName', 'x'],
      ['00081060', 'y'],
      ['00400275.00400009', '3'],
      ['includefield', '00081030'],
      ['includefield', '00081010'],
      ['includefield', '0008103E'],
      ['limit', '100'],
      ['offset', '0'],
    ]);
  });

  it.each(['limit', 'includefield', 'a', '', 'Patient ID', 'PatientID=x&b'])(
    'refuses the attribute %j',
    async (attribute) => {
      const { web, asked } = answering(() => ({ json: [] }));
      await expect(web.searchStudies({ attributes: { [attribute]: 'x' } })).rejects.toMatchObject({
        code: 'BAD_INPUT',
      });
      expect(asked).toEqual([]);
    },
  );

  it('fetches all pages without a limit, and only enough with one', async () => {
    const { web, asked } = answering((url) => ({ json: page(url) }));
    expect(uids(await web.searchStudies())).toEqual(many.map((_, index) => `1.2.${index}`));
    expect(asked.map(({ searchParams }) => [searchParams.get('limit'), searchParams.get('offset')])).toEqual([
      ['100', '0'],
      ['100', '100'],
      ['100', '200'],
    ]);
    expect(uids(await web.searchStudies({}, { limit: 120, offset: 130 }))).toEqual(
      Array.from({ length: 120 }, (_, index) => `1.2.${index + 130}`),
    );
    expect(uids(await web.searchStudies({}, { limit: 3 }))).toEqual(['1.2.0', '1.2.1', '1.2.2']);
    expect(await web.searchStudies({}, { limit: 0 })).toEqual([]);
    expect(await web.searchStudies({}, { offset: 250 })).toEqual([]);
  });

  it('requests the next page where a server announces more results', async () => {
    const { web, asked } = answering((url) => {
      const json = page(url, 40);
      const isLast = Number(url.searchParams.get('offset')) + 40 >= many.length;
      const headers = { warning: '299 pacs: "The number of results exceeded the maximum"' };
      return isLast ? { json } : { json, headers };
    });
    expect(await web.searchStudies()).toHaveLength(250);
    expect(asked).toHaveLength(7);
  });

  it('accepts a server that ignores limits; refuses one that ignores only offsets', async () => {
    const whole = answering(() => ({ json: many }));
    expect(await whole.web.searchStudies()).toHaveLength(250);
    expect(whole.asked).toHaveLength(1);
    expect(await whole.web.searchStudies({}, { limit: 7 })).toHaveLength(7);
    const stuck = answering(() => ({ json: many.slice(0, 100) }));
    await expect(stuck.web.searchStudies()).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringContaining('gave the same results again'),
    });
    expect(stuck.asked).toHaveLength(2);
  });

  it('refuses more results than the maximum', async () => {
    let count = 0;
    const { web } = answering(() => ({ json: Array.from({ length: 100 }, () => study(`1.${++count}`)) }));
    await expect(web.searchStudies()).rejects.toMatchObject({
      code: 'BAD_REQUEST',
      message: expect.stringContaining('More than 50000 results'),
    });
  });

  it.each([{ limit: -1 }, { limit: 1.5 }, { offset: -1 }, { limit: Number.NaN }])(
    'refuses %j',
    async (options) => {
      const { web } = answering(() => ({ json: [] }));
      await expect(web.searchStudies({}, options)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    },
  );

  it('reads the fields of a study', async () => {
    const { web } = answering(() => ({
      json: [
        {
          '0020000D': { vr: 'UI', Value: ['1.2'] },
          '00080020': { vr: 'DA', Value: ['20240131'] },
          '00080030': { vr: 'TM', Value: ['101112.5'] },
          '00081030': { vr: 'LO', Value: ['Head '] },
          '00080050': { vr: 'SH' },
          '00080061': { vr: 'CS', Value: ['MR', null, 'SEG'] },
          '00100010': { vr: 'PN', Value: [{ Alphabetic: 'Yamada^Tarou', Ideographic: '山田^太郎' }] },
          '00100020': { vr: 'LO', Value: ['p1'] },
          '00100030': { vr: 'DA', Value: ['19700101'] },
          '00100040': { vr: 'CS', Value: ['O'] },
          '00201206': { vr: 'IS', Value: [2] },
          '00201208': { vr: 'IS', Value: ['38'] },
        },
      ],
    }));
    const [{ dataset, ...fields }] = await web.searchStudies();
    expect(fields).toEqual({
      studyInstanceUid: '1.2',
      studyDate: '20240131',
      studyTime: '101112.5',
      studyDescription: 'Head',
      accessionNumber: undefined,
      modalities: ['MR', 'SEG'],
      patientName: 'Yamada^Tarou',
      patientId: 'p1',
      patientBirthDate: '19700101',
      patientSex: 'O',
      seriesCount: 2,
      instanceCount: 38,
    });
    expect(dicomText(dataset, 'PatientID')).toBe('p1');
  });

  it.each([
    ['text', 'nonsense', {}, /JSON that cannot be read/],
    ['a list of texts', '["a"]', {}, /not DICOM JSON/],
    ['a result without its UID', '[{}]', {}, /without StudyInstanceUID/],
    [
      'a page',
      '<html>',
      { 'content-type': 'text/html' },
      /with text\/html instead of application\/dicom\+json\..*login/,
    ],
    [
      'XML',
      '',
      { 'content-type': 'multipart/related; type="application/dicom+xml"' },
      /multipart\/related instead/,
    ],
  ])('refuses %s', async (_what, text, headers, message) => {
    const { web } = answering(() => ({ text, headers }));
    await expect(web.searchStudies()).rejects.toMatchObject({
      code: 'UPSTREAM',
      message: expect.stringMatching(message),
    });
  });

  it('takes no content as no results', async () => {
    const fetch = async () => new Response(null, { status: 204 });
    expect(await createDicomWeb({ url: 'http://pacs.example', fetch }).searchStudies()).toEqual([]);
  });
});

describe('searchSeries() and searchInstances()', () => {
  it('search below the given study and series, and fill in their UIDs', async () => {
    const { web, asked } = answering((url) => ({
      json: url.pathname.endsWith('/series')
        ? [{ '0020000E': { Value: ['1.2.3'] }, '00201209': { Value: ['19'] }, '00200011': { Value: [4] } }]
        : [
            {
              '00080018': { Value: ['1.2.3.4'] },
              '00280010': { Value: [384] },
              '00280008': { Value: ['7'] },
            },
          ],
    }));
    const [series] = await web.searchSeries({ study: '1.2', modality: 'CT', seriesNumber: 4 });
    expect(series).toMatchObject({
      studyInstanceUid: '1.2',
      seriesInstanceUid: '1.2.3',
      instanceCount: 19,
      seriesNumber: 4,
    });
    const [instance] = await web.searchInstances({ study: '1.2', series: '1.2.3' });
    expect(instance).toMatchObject({
      studyInstanceUid: '1.2',
      seriesInstanceUid: '1.2.3',
      sopInstanceUid: '1.2.3.4',
      rows: 384,
      frameCount: 7,
    });
    await web.searchInstances({ study: '1.2', series: '1.2.3', instance: '1.9' }, { includeFields: 'all' });
    expect(asked.map(({ pathname, search }) => pathname + search)).toEqual([
      '/dicom-web/studies/1.2/series?Modality=CT&SeriesNumber=4&includefield=00180015&limit=100&offset=0',
      '/dicom-web/studies/1.2/series/1.2.3/instances?limit=100&offset=0',
      '/dicom-web/studies/1.2/series/1.2.3/instances?SOPInstanceUID=1.9&includefield=all&limit=100&offset=0',
    ]);
  });

  it('need the study in each result where it was not given', async () => {
    const { web } = answering(() => ({ json: [{ '0020000E': { Value: ['1.2.3'] } }] }));
    await expect(web.searchSeries({ series: '1.2.3' })).rejects.toMatchObject({
      message: expect.stringContaining('without StudyInstanceUID'),
    });
  });
});

describe('the accessors of DICOM JSON', () => {
  const [dataset] = toDatasets(
    JSON.parse(`{
      "00100010": { "vr": "PN", "Value": [{ "Ideographic": "山田" }, { "Phonetic": "やまだ" }, {}] },
      "0008103e": { "vr": "LO", "Value": ["lower case"] },
      "00180050": { "vr": "DS", "Value": [" 3.5 "] },
      "00180080": { "vr": "DS", "Value": ["much"] },
      "00280030": { "vr": "DS", "Value": [0.5, "0.25"] },
      "00081140": { "vr": "SQ", "Value": [{ "00081155": { "vr": "UI", "Value": ["1.2"] } }, null, 3, []] },
      "00080008": { "vr": "CS", "Value": "not a list" },
      "00080016": null,
      "__proto__": { "vr": "LO", "Value": ["x"] }
    }`),
    'pacs.example',
  );

  it('read texts, numbers, lists and sequences by keyword and by tag', () => {
    expect(dicomText(dataset, 'PatientName')).toBe('山田');
    expect(dicomTexts(dataset, '00100010')).toEqual(['山田', 'やまだ']);
    expect(dicomText(dataset, 'SeriesDescription')).toBe('lower case');
    expect(dicomText(dataset, '0008103e')).toBe('lower case');
    expect(dicomNumber(dataset, '00180050')).toBe(3.5);
    expect(dicomNumber(dataset, '00180080')).toBeUndefined();
    expect(dicomValues(dataset, '00280030')).toEqual([0.5, '0.25']);
    expect(
      dicomItems(dataset, '00081140').map((item) => dicomText(item, 'ReferencedSOPInstanceUID')),
    ).toEqual(['1.2']);
  });

  it('give nothing for what is missing, malformed or inherited', () => {
    for (const attribute of ['PatientID', '00080008', 'SOPClassUID', 'constructor', 'toString', '']) {
      expect(dicomText(dataset, attribute)).toBeUndefined();
      expect(dicomNumber(dataset, attribute)).toBeUndefined();
      expect(dicomValues(dataset, attribute)).toEqual([]);
      expect(dicomItems(dataset, attribute)).toEqual([]);
    }
    expect(() => toStudy(dataset, 'pacs.example')).toThrow(expect.objectContaining({ code: 'UPSTREAM' }));
  });

  it('toDatasets() takes one object as a list, and refuses other JSON', () => {
    expect(toDatasets({}, 'x')).toEqual([{}]);
    expect(toDatasets([], 'x')).toEqual([]);
    for (const data of [null, 1, 'a', [null], [[]], [{}, 1]])
      expect(() => toDatasets(data, 'x')).toThrow(expect.objectContaining({ code: 'UPSTREAM' }));
  });
});
