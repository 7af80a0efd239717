import { type Affine, determinant, directionOf, spacingOf } from '../geometry/affine.ts';
import type { Grid, Size } from '../volume.ts';
import type { NiftiGeometry } from './file-geometry.ts';
import { affineFault, badHeader, scaleAffine } from './header.ts';

// The two forms of a NIfTI header, and pixdim: nifti1.h of the NIfTI Data Format Working Group, "3D IMAGE (VOLUME) ORIENTATION".

/** The fields as stored in a header. */
export interface NiftiFormFields {
  version: 1 | 2;
  units: number;
  pixdim: readonly number[];
  qformCode: number;
  sformCode: number;
  /** b, c, d, then the offsets x, y, z. */
  qform: readonly number[];
  sform: readonly number[];
}

/** Length units by the low three bits of xyzt_units, in mm; no unit counts as mm, as in every reader. */
const mmOfUnit: Record<number, number> = { 1: 1000, 2: 1, 3: 0.001 };
export const mmOf = (units: number) => mmOfUnit[units & 7] ?? 1;

/** nibabel treats the codes 1 to 5 as set, any other number as 0. */
const isSet = (code: number) => code >= 1 && code <= 5;

/**
 * The affine of a header, RAS+ mm: from the sform where sform_code is 1 to 5, else from the qform where qform_code is, else from
 * pixdim about the centre with x to the left (nibabel's get_best_affine). An sform that cannot be inverted is replaced by a
 * valid qform, as in ITK; a single slice whose sform has no step across it is given the thickness in pixdim.
 *
 * @throws TomaatError BAD_HEADER if the form that the codes select is unusable
 */
export function readForms(fields: NiftiFormFields, size: Size): { geometry: NiftiGeometry; affine: Affine } {
  const { version, qformCode, sformCode, qform, sform } = fields;
  const stated: NiftiGeometry = {
    format: 'nifti',
    version,
    units: fields.units & 63,
    pixdim: fields.pixdim.slice(0, 4),
    ...(qformCode > 0 &&
      qform.every(Number.isFinite) && {
        qform: {
          code: qformCode,
          quaternion: qform.slice(0, 3),
          offset: qform.slice(3),
        },
      }),
    ...(sformCode > 0 && sform.every(Number.isFinite) && { sform: { code: sformCode, rows: [...sform] } }),
  };
  let geometry = stated;
  if (isSet(sformCode)) {
    const field = 'The sform of the NIfTI header (srow_x, srow_y, srow_z)';
    const fault = affineFault(scaleAffine([...sform, 0, 0, 0, 1], mmOf(fields.units)), field);
    if (fault !== undefined) {
      const { sform: _, ...others } = stated;
      geometry = others;
      if (!isSet(qformCode) || pixdimFault(fields, size) !== undefined) {
        const rows = withThickness(fields, size);
        if (!rows) throw badHeader(fault);
        geometry = { ...others, sform: { code: sformCode, rows } };
      }
    }
  } else {
    const fault = pixdimFault(fields, size);
    if (fault !== undefined) throw badHeader(fault);
  }
  const affine = niftiAffine(geometry, size).map((v) => v + 0);
  return { geometry: { ...geometry, pixdim: finitePixdim(fields, affine) }, affine };
}

/** The affine that a geometry states, RAS+ mm. */
export function niftiAffine({ sform, qform, pixdim, units }: NiftiGeometry, size: Size): Affine {
  if (sform && isSet(sform.code)) return scaleAffine([...sform.rows, 0, 0, 0, 1], mmOf(units));
  // nibabel drops the signs of pixdim.
  const spacing = pixdim.slice(1).map(Math.abs);
  if (qform && isSet(qform.code)) {
    const affine = qformAffine(qform.quaternion, qform.offset, spacing, pixdim[0] === -1 ? -1 : 1);
    return scaleAffine(affine, mmOf(units));
  }
  const [x, y, z] = spacing;
  const centre = spacing.map((s, i) => ((size[i] - 1) / 2) * s);
  const affine = [-x, 0, 0, centre[0], 0, y, 0, -centre[1], 0, 0, z, -centre[2], 0, 0, 0, 1];
  return scaleAffine(affine, mmOf(units));
}

/** Why the qform, or pixdim alone if no qform is set, gives no affine; undefined if it does. */
function pixdimFault(
  { version, units, pixdim, qformCode, qform }: NiftiFormFields,
  size: Size,
): string | undefined {
  for (let i = 1; i <= 3; i++) {
    // nibabel turns a spacing of 0 into 1 mm, which would be a guess.
    if (!(Math.abs(pixdim[i]) > 0 && Math.abs(pixdim[i]) < Number.POSITIVE_INFINITY)) {
      return `NIfTI field pixdim[${i}] is ${pixdim[i]}, but a spacing is above 0. Write the file again with its true spacing`;
    }
  }
  const geometry: NiftiGeometry = {
    format: 'nifti',
    version,
    units: units & 63,
    pixdim: pixdim.slice(0, 4),
  };
  if (!isSet(qformCode)) return affineFault(niftiAffine(geometry, size), 'The pixdim of the NIfTI header');
  const [b, c, d] = qform;
  if (!(1 - (b * b + c * c + d * d) > -1e-5)) {
    return `The NIfTI fields quatern_b, _c, _d (${b}, ${c}, ${d}) are longer than 1 together, which is not a rotation. Write the file again`;
  }
  return affineFault(
    niftiAffine(
      { ...geometry, qform: { code: qformCode, quaternion: [b, c, d], offset: qform.slice(3) } },
      size,
    ),
    'The qform of the NIfTI header (quatern_b, _c, _d, qoffset_x, _y, _z)',
  );
}

/** A number as the header stores it: NIfTI-1 has float32. */
const asStored = (value: number, version: 1 | 2) => (version === 1 ? Math.fround(value) : value);

/** pixdim[0] to [3]; a number that is not finite is replaced by that of the affine. */
function finitePixdim({ version, pixdim, units }: NiftiFormFields, affine: Affine): NiftiGeometry['pixdim'] {
  const spacing = spacingOf(affine);
  const stated = [1, ...spacing.map((mm) => mm / mmOf(units))];
  return stated.map((instead, i) => (Number.isFinite(pixdim[i]) ? pixdim[i] : asStored(instead, version)));
}

/**
 * The sform of one slice whose column across the slice is 0, as nibabel's users write it, with that column filled in: at right
 * angles to the slice, with the length from pixdim. It only sets the thickness: there is no other slice to place. Undefined
 * if the sform has another fault.
 */
function withThickness({ version, sform, pixdim }: NiftiFormFields, size: Size): number[] | undefined {
  const column = (k: number) => [sform[k], sform[4 + k], sform[8 + k]];
  const across = size.findIndex((n, k) => n === 1 && column(k).every((v) => v === 0));
  if (across < 0) return undefined;
  const [u, v] = [column((across + 1) % 3), column((across + 2) % 3)];
  const normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const length = Math.hypot(...normal);
  if (!(length > 0 && Number.isFinite(length))) return undefined;
  const thickness = Math.abs(pixdim[across + 1]);
  if (!(thickness > 0 && thickness < Number.POSITIVE_INFINITY)) {
    throw badHeader(
      `The slice of the NIfTI file has no thickness: column ${across} of the sform (srow_x[${across}], srow_y[${across}], srow_z[${across}]) is 0, and pixdim[${across + 1}] is ${pixdim[across + 1]}. Write the file again with the thickness in one of them`,
    );
  }
  return sform.map((value, i) =>
    i % 4 === across ? asStored((normal[i >> 2] / length) * thickness, version) + 0 : value,
  );
}

/** nifti1.h, method 2: a unit quaternion whose first part is the root of what the other three leave. */
export function qformAffine(
  [b, c, d]: readonly number[],
  offset: readonly number[],
  spacing: readonly number[],
  handedness: 1 | -1,
): Affine {
  // A rotation by 180° leaves 0, and the rounding of the fields may leave a little less.
  const a = Math.sqrt(Math.max(0, 1 - (b * b + c * c + d * d)));
  const s = 2 / (a * a + b * b + c * c + d * d);
  const rotation = [
    [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
    [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
    [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
  ];
  const steps = [spacing[0], spacing[1], spacing[2] * handedness];
  return [...rotation.flatMap((row, r) => [...row.map((v, k) => v * steps[k]), offset[r]]), 0, 0, 0, 1];
}

/**
 * A grid as we state it if no input's header states the same one: in mm, the sform always (code 1), and the qform if the
 * affine is only spacing and rotation, so that every reader finds the same affine.
 */
export function formsOf({ affine }: Grid, version: 1 | 2): NiftiGeometry {
  const quaternion = quaternionOf(affine, version);
  const handedness = determinant(affine) < 0 ? -1 : 1;
  return {
    format: 'nifti',
    version,
    units: 2,
    pixdim: [quaternion ? handedness : 1, ...spacingOf(affine)],
    ...(quaternion && { qform: { code: 1, quaternion, offset: [affine[3], affine[7], affine[11]] } }),
    sform: { code: 1, rows: affine.slice(0, 12) },
  };
}

/**
 * b, c, d of the affine's rotation, or undefined if its axes are not at right angles. Of the float32 numbers next to
 * them, those are chosen that give the best root for a, and never one of a negative number: near a rotation by 180°
 * plain rounding would move the axes by 0.03°, and some readers would return NaN.
 */
function quaternionOf(affine: Affine, version: 1 | 2): number[] | undefined {
  const d = directionOf(affine);
  for (const [i, k] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ]) {
    if (Math.abs(d[i] * d[k] + d[3 + i] * d[3 + k] + d[6 + i] * d[6 + k]) > 1e-5) return undefined;
  }
  const sign = determinant(affine) < 0 ? -1 : 1;
  const m = (r: number, c: number) => d[3 * r + c] * (c === 2 ? sign : 1);
  // 4 × the squares of a, b, c, d: the largest is far from 0, and the others follow from products with it.
  const squares = [
    1 + m(0, 0) + m(1, 1) + m(2, 2),
    1 + m(0, 0) - m(1, 1) - m(2, 2),
    1 - m(0, 0) + m(1, 1) - m(2, 2),
    1 - m(0, 0) - m(1, 1) + m(2, 2),
  ];
  const products = [
    [0, m(2, 1) - m(1, 2), m(0, 2) - m(2, 0), m(1, 0) - m(0, 1)],
    [m(2, 1) - m(1, 2), 0, m(0, 1) + m(1, 0), m(0, 2) + m(2, 0)],
    [m(0, 2) - m(2, 0), m(0, 1) + m(1, 0), 0, m(1, 2) + m(2, 1)],
    [m(1, 0) - m(0, 1), m(0, 2) + m(2, 0), m(1, 2) + m(2, 1), 0],
  ];
  const main = squares.indexOf(Math.max(...squares));
  const root = 2 * Math.sqrt(squares[main]);
  const q = products[main].map((v, i) => (i === main ? root / 4 : v / root));
  const norm = Math.hypot(...q) * (q[0] < 0 ? -1 : 1);
  const exact = q.map((v) => v / norm);
  if (version === 2) {
    return exact.slice(1).map((v) => v * (1 - Number.EPSILON));
  }
  const choices = exact.slice(1).map((v) => {
    const step = Math.max(2 ** -149, 2 ** (Math.floor(Math.log2(Math.abs(v) || 2 ** -100)) - 23));
    return Array.from({ length: 17 }, (_, k) => Math.fround(Math.fround(v) + (k - 8) * step));
  });
  const wanted = exact[0] * exact[0];
  let best = { miss: Number.POSITIVE_INFINITY, bcd: [0, 0, 0] };
  for (const b of choices[0]) {
    for (const c of choices[1]) {
      for (const d of choices[2]) {
        const rest = 1 - (b * b + c * c + d * d);
        const miss = Math.abs(rest - wanted);
        if (rest >= 0 && miss < best.miss) best = { miss, bcd: [b, c, d] };
      }
    }
  }
  return best.bcd;
}
