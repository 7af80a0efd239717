import type { Label } from '../app/elements.ts';

/*
 * Codes of SNOMED CT for labels by their names. Codes and meanings are those of the context groups of DICOM PS3.16; a name is
 * here only if it has one meaning as a label of a segmentation.
 */

type Entry = readonly [code: string, meaning: string, ...otherNames: string[]];

/** Structures of which there is a left and a right one: a side in the name becomes the modifier. */
const paired: readonly Entry[] = [
  ['23451007', 'Adrenal gland', 'adrenal'],
  ['4958002', 'Amygdala'],
  ['76752008', 'Breast'],
  ['8887007', 'Brachiocephalic vein'],
  ['80144004', 'Calcaneus'],
  ['11000004', 'Caudate Nucleus', 'caudate'],
  ['51299004', 'Clavicle', 'clavicula'],
  ['32062004', 'Common carotid artery'],
  ['73634005', 'Common iliac artery'],
  ['46027005', 'Common iliac vein'],
  ['81745001', 'Eye', 'eyeball'],
  ['71341001', 'Femur'],
  ['2812003', 'Femoral head', 'femur head'],
  ['87342007', 'Fibula'],
  ['14738005', 'Globus Pallidus'],
  ['5366008', 'Hippocampus'],
  ['85050009', 'Humerus'],
  ['86117002', 'Internal carotid artery'],
  ['64033007', 'Kidney'],
  ['78076003', 'Lens', 'eye lens'],
  ['66720007', 'Lateral Ventricle'],
  ['90572001', 'Lower lobe of lung', 'lung lower lobe'],
  ['39607008', 'Lung'],
  ['15924003', 'Maxillary sinus'],
  ['18234004', 'optic nerve'],
  ['15497006', 'Ovary'],
  ['45289007', 'Parotid gland', 'parotid'],
  ['64234005', 'Patella'],
  ['89278009', 'Putamen'],
  ['62413002', 'Radius'],
  ['2841007', 'Renal artery'],
  ['56400007', 'Renal vein'],
  ['79601000', 'Scapula'],
  ['54019009', 'Submandibular gland'],
  ['67453005', 'Talus'],
  ['40689003', 'Testis', 'testicle'],
  ['42695009', 'Thalamus'],
  ['12611008', 'Tibia'],
  ['23416004', 'Ulna'],
  ['45653009', 'Upper lobe of lung', 'lung upper lobe'],
  ['87953007', 'Ureter'],
];

/** Structures that there are once, or whose side is a part of their name. */
const single: readonly Entry[] = [
  ['7832008', 'Abdominal aorta'],
  ['15825003', 'Aorta'],
  ['57034009', 'Aortic arch'],
  ['54247002', 'Ascending aorta'],
  ['28273000', 'Bile duct'],
  ['89837001', 'Bladder', 'urinary bladder'],
  ['12738006', 'Brain'],
  ['119238007', 'Brain Stem', 'brainstem'],
  ['32713005', 'Cecum', 'caecum'],
  ['113305005', 'Cerebellum'],
  ['71854001', 'Colon'],
  ['88442005', 'Corpus callosum'],
  ['281130003', 'Descending aorta'],
  ['38848004', 'Duodenum'],
  ['32849002', 'Esophagus', 'oesophagus'],
  ['28231008', 'Gallbladder', 'gall bladder'],
  ['80891009', 'Heart'],
  ['34516001', 'Ileum'],
  ['64131007', 'Inferior vena cava'],
  ['21306003', 'Jejunum'],
  ['4596009', 'Larynx'],
  ['82471001', 'Left atrium', 'heart atrium left', 'left atrium of heart'],
  ['87878005', 'Left ventricle', 'heart ventricle left', 'left ventricle of heart'],
  ['10200004', 'Liver'],
  ['91609006', 'Mandible'],
  ['72481006', 'Middle lobe of right lung', 'lung middle lobe right', 'right lung middle lobe'],
  ['244453006', 'Optic chiasm'],
  ['15776009', 'Pancreas'],
  ['69930009', 'Pancreatic duct'],
  ['279706003', 'Peripheral zone of the prostate', 'prostate peripheral zone', 'peripheral zone of prostate'],
  ['56329008', 'Pituitary', 'pituitary gland'],
  ['32764006', 'Portal vein'],
  ['41216001', 'Prostate'],
  ['81040000', 'Pulmonary artery'],
  ['34402009', 'Rectum'],
  ['73829009', 'Right atrium', 'heart atrium right', 'right atrium of heart'],
  ['53085002', 'Right ventricle', 'heart ventricle right', 'right ventricle of heart'],
  ['54735007', 'Sacrum'],
  ['89546000', 'Skull'],
  ['30315005', 'Small intestine', 'small bowel'],
  ['2748008', 'Spinal cord'],
  ['78961009', 'Spleen'],
  ['22083002', 'Splenic artery'],
  ['35819009', 'Splenic vein'],
  ['56873002', 'Sternum'],
  ['69695003', 'Stomach'],
  ['42258001', 'Superior mesenteric artery'],
  ['90771006', 'Superior Mesenteric Vein'],
  ['48345005', 'Superior vena cava'],
  ['9875009', 'Thymus'],
  ['69748006', 'Thyroid', 'thyroid gland'],
  ['44567001', 'Trachea'],
  ['399384005', 'Transition zone of the prostate', 'prostate transition zone', 'transition zone of prostate'],
  ['35039007', 'Uterus'],
  ...vertebrae(),
];

function vertebrae(): Entry[] {
  const codes = {
    C: '14806007 39976000 113205007 5329002 36978003 36054005 87391001',
    T: '64864005 53733008 1626008 73071006 56401006 45296009 62487009 11068009 82687006 7610001 12989004 23215003',
    L: '66794005 14293000 36470004 11994002 49668003',
  };
  return Object.entries(codes).flatMap(([part, list]) =>
    list.split(' ').map((code, i): Entry => {
      const name = `${part}${i + 1}`;
      return [code, `${name} vertebra`, `vertebra ${name}`, `vertebrae ${name}`];
    }),
  );
}

/** Every word in lower case, without underscores, hyphens and brackets. */
const wordsOf = (name: string): string[] =>
  name
    .toLowerCase()
    .split(/[\s_(),-]+/)
    .filter(Boolean);

const byName = (entries: readonly Entry[]): ReadonlyMap<string, Entry> =>
  new Map(
    entries.flatMap((entry) =>
      entry.slice(1).map((name): [string, Entry] => [wordsOf(name).join(' '), entry]),
    ),
  );
const pairedByName = byName(paired);
const singleByName = byName(single);

const sct = (value: string, meaning: string) => ({ scheme: 'SCT', value, meaning });
const left = sct('7771000', 'Left');
const right = sct('24028007', 'Right');

/**
 * The SNOMED CT code of a label by its name, with the side of a paired structure as `modifier`: “Kidney_Right”, “left adrenal gland”.
 * Case, underscores, hyphens and the place of the side do not count, and L or R may end the name. Empty for every other name.
 */
export function codesOfName(name: string): Pick<Label, 'code' | 'modifier'> {
  const words = wordsOf(name);
  const entry = singleByName.get(words.join(' ')) ?? pairedByName.get(words.join(' '));
  if (entry) return { code: sct(entry[0], entry[1]) };
  const sides = words.flatMap((word, i) => {
    const isLast = i === words.length - 1;
    if (word === 'left' || (isLast && word === 'l')) return [{ i, modifier: left }];
    return word === 'right' || (isLast && word === 'r') ? [{ i, modifier: right }] : [];
  });
  if (sides.length !== 1) return {};
  const [{ i, modifier }] = sides;
  const bare = pairedByName.get(words.toSpliced(i, 1).join(' '));
  return bare ? { code: sct(bare[0], bare[1]), modifier } : {};
}

/** Every code of the table with its meaning. */
export const labelCodes: readonly (readonly [code: string, meaning: string])[] = [
  ...[...paired, ...single].map(([code, meaning]) => [code, meaning] as const),
  ...[left, right].map(({ value, meaning }) => [value, meaning] as const),
];
