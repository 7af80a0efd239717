import { attributesByAction } from './deidentification-table.gen.ts';
import type { Tag } from './tags.ts';
import type { Vr } from './value-representations.ts';

/**
 * The action for an attribute: removed, emptied, replaced by a dummy value, or its UIDs replaced (X, Z, D, U of
 * PS3.15 E.1.1).
 */
export type Action = 'remove' | 'empty' | 'replace' | 'replace UIDs';

/** A row of PS3.15 table E.1-1. */
export interface Rule {
  readonly name: string;
  readonly action: Action;
  /** Whether the table allows removing the attribute if its object does not require it. */
  readonly mayBeRemoved: boolean;
  /** Whether the Retain Patient Characteristics Option keeps the value. */
  readonly isCharacteristic: boolean;
  /** Whether the modified dates option keeps the value with another date. */
  readonly isTemporal: boolean;
}

let rules: ReadonlyMap<Tag, Rule> | undefined;

/** The row of an attribute; undefined if it is not in the table. */
export function ruleOf(tag: Tag): Rule | undefined {
  rules ??= unpack();
  return rules.get(tag);
}

/** All rows. */
export const allRules = (): ReadonlyMap<Tag, Rule> => (rules ??= unpack());

function unpack(): Map<Tag, Rule> {
  const all = new Map<Tag, Rule>();
  for (const [key, texts] of Object.entries(attributesByAction)) {
    const [actions, ...options] = key.split(' ');
    let tag = 0;
    for (const text of texts.split('|')) {
      const space = text.indexOf(' ');
      tag += Number.parseInt(text.slice(0, space), 36);
      all.set(tag, {
        name: text.slice(space + 1),
        action: actionOf(actions),
        mayBeRemoved: actions.startsWith('X'),
        isCharacteristic: options.includes('characteristics'),
        isTemporal: options.includes('dates'),
      });
    }
  }
  return all;
}

/**
 * Where the action depends on the type of an attribute in its object (X/Z, X/D, Z/D …), the one that fits every type:
 * a non-empty value is replaced by a dummy, or emptied if the table has no dummy. Empty values stay empty.
 */
function actionOf(actions: string): Action {
  if (actions.includes('U')) return 'replace UIDs';
  if (actions.endsWith('D')) return 'replace';
  return actions.endsWith('Z') ? 'empty' : 'remove';
}

/** Acquisition Context Sequence may be empty in objects that require it. */
const acquisitionContext: Tag = 0x00400555;

/**
 * The action for a sequence: a dummy has no items that a reader could use, and an empty one is invalid if the
 * attribute is optional, so all except those of type 2 are removed.
 */
export function sequenceAction(tag: Tag, rule: Rule | undefined): 'remove' | 'empty' | 'clean items' {
  if (rule === undefined || rule.action === 'replace UIDs') return 'clean items';
  const keepsPlace = rule.action === 'empty' && (!rule.mayBeRemoved || tag === acquisitionContext);
  return keepsPlace ? 'empty' : 'remove';
}

/**
 * Groups whose short texts (LO, SH) say how an image was made and what codes mean; in other groups they name people,
 * orders and places.
 */
const technicalGroups: ReadonlySet<number> = new Set([
  0x0008, 0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0054, 0x0062,
]);

/** These include identifiers of devices and images, network addresses, and free text. */
const telling: ReadonlySet<Tag> = new Set([
  0x00181003, // DeviceID
  0x00181006, // GridID
  0x00181010, // SecondaryCaptureDeviceID
  0x00181011, // HardcopyCreationDeviceID
  0x00181803, // NTPSourceAddress
  0x00189916, // InstructionText
  0x00201020, // Reference
  0x0028702a, // TestResultComment
  0x00540400, // ImageID
]);

/** LUTLabel: "US" or a name of units, required in a value map. */
const lutLabel: Tag = 0x00409210;

/**
 * Whether a short text (LO, SH) that is not in the table is one that an image needs and that by definition names
 * nobody.
 */
export const isTechnicalText = (tag: Tag): boolean =>
  tag === lutLabel || (technicalGroups.has(Math.floor(tag / 65536)) && !telling.has(tag));

/**
 * Attributes of a patient (group 0010) that are not in the table, such as a body mass index, are characteristics of
 * the patient.
 */
export const isOfPatient = (tag: Tag): boolean => Math.floor(tag / 65536) === 0x0010;

/** A private element known to identify nobody. */
export interface SafePrivateElement {
  readonly creator: string;
  readonly group: number;
  /** Last two digits of the element number. */
  readonly element: number;
  readonly vr: Vr;
  /** The maximum number of values. */
  readonly count: number;
}

/**
 * The elements of PS3.15 table E.3.10-1 that say what voxels mean, all numeric: scale factors (Philips PET: QIBA SUV
 * vendor-neutral pseudo-code; Philips MR: "precise" values), and b-values with their directions (Philips, Siemens, GE
 * conformance statements).
 */
export const safePrivateElements: readonly SafePrivateElement[] = [
  { creator: 'Philips PET Private Group', group: 0x7053, element: 0x00, vr: 'DS', count: 1 },
  { creator: 'Philips PET Private Group', group: 0x7053, element: 0x09, vr: 'DS', count: 1 },
  { creator: 'Philips MR Imaging DD 001', group: 0x2005, element: 0x0d, vr: 'FL', count: 1 },
  { creator: 'Philips MR Imaging DD 001', group: 0x2005, element: 0x0e, vr: 'FL', count: 1 },
  { creator: 'Philips Imaging DD 001', group: 0x2001, element: 0x03, vr: 'FL', count: 1 },
  { creator: 'SIEMENS MR HEADER', group: 0x0019, element: 0x0c, vr: 'IS', count: 1 },
  { creator: 'SIEMENS MR HEADER', group: 0x0019, element: 0x0e, vr: 'FD', count: 3 },
  { creator: 'SIEMENS MR HEADER', group: 0x0019, element: 0x27, vr: 'FD', count: 6 },
  { creator: 'GEMS_PARM_01', group: 0x0043, element: 0x39, vr: 'IS', count: 4 },
];
