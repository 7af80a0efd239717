/** The value representations of PS3.5 6.2. */
export const valueRepresentations = [
  'AE', 'AS', 'AT', 'CS', 'DA', 'DS', 'DT', 'FD', 'FL', 'IS', 'LO', 'LT', 'OB', 'OD', 'OF', 'OL', 'OV', 'OW', 'PN', 'SH', 'SL',
  'SQ', 'SS', 'ST', 'SV', 'TM', 'UC', 'UI', 'UL', 'UN', 'UR', 'US', 'UT', 'UV',
] as const; // biome-ignore format: one table
export type Vr = (typeof valueRepresentations)[number];

const all: ReadonlySet<string> = new Set(valueRepresentations);
export const isVr = (value: string): value is Vr => all.has(value);

const long: ReadonlySet<string> = new Set<Vr>([
  'OB', 'OD', 'OF', 'OL', 'OV', 'OW', 'SQ', 'SV', 'UC', 'UN', 'UR', 'UT', 'UV',
]); // biome-ignore format: one table

/** Whether an explicit VR element has a 32-bit length after two zero bytes (PS3.5 7.1.2). */
export const hasLongLength = (vr: Vr): boolean => long.has(vr);
