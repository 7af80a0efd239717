/** The matrices of a fast convolution along one axis; see `toomCook`. */
export interface FastConvolution {
  /** From the t voxels of a tile to its t transformed ones, [t][t]. */
  readonly ofInput: readonly (readonly number[])[];
  /** From the taps of a kernel to its transformed ones, [t][taps]. */
  readonly ofKernel: readonly (readonly number[])[];
  /** From the t products to the outputs of a tile, [outputs][t]. */
  readonly ofProducts: readonly (readonly number[])[];
}

/**
 * Matrices by which several neighbouring outputs of a convolution take t = outputs + taps − 1 products instead of outputs · taps (Toom-Cook;
 * for networks: Lavin and Gray, “Fast Algorithms for Convolutional Neural Networks”, https://arxiv.org/abs/1509.09308):
 *
 *     y[i] = Σ x[i + k]·w[k] = Σ ofProducts[i][j] · (Σ ofInput[j][l]·x[l]) · (Σ ofKernel[j][k]·w[k])    over all j of t, l of t, k of taps.
 *
 * The product of two polynomials of degrees `outputs` − 1 and `taps` − 1 has degree t − 1: it follows from its values at t − 1 points a and from its
 * leading coefficient. That interpolation, transposed, is this convolution. With M_j the product of (z − a_l) over all l ≠ j, and M that over all l:
 * row j of `ofInput` has the coefficients of M_j, and the last row those of M; row j of `ofKernel` is a_j^k / M_j(a_j), and the last row
 * takes the last tap alone; column j of `ofProducts` is a_j^i, and the last column is 1 for the last output.
 * @param points t − 1 different numbers, small powers of two so that all but the division is exact
 */
export function toomCook(outputs: number, taps: number, points: readonly number[]): FastConvolution {
  const t = outputs + taps - 1;
  /** Coefficients of the product of (z − a) over all points but one, from that of z⁰, t of them. */
  const productWithout = (left: number): number[] => {
    const coefficients = [1, ...new Array<number>(t - 1).fill(0)];
    for (const [l, a] of points.entries())
      if (l !== left)
        for (let k = t - 1; k >= 0; k--) coefficients[k] = (coefficients[k - 1] ?? 0) - a * coefficients[k];
    return coefficients;
  };
  const scale = (j: number) => points.reduce((p, a, l) => (l === j ? p : p * (points[j] - a)), 1);
  const lastOf = (length: number) => Array.from({ length }, (_, k) => (k === length - 1 ? 1 : 0));
  return {
    ofInput: [...points.map((_, j) => productWithout(j)), productWithout(-1)],
    ofKernel: [
      ...points.map((a, j) => Array.from({ length: taps }, (_, k) => a ** k / scale(j))),
      lastOf(taps),
    ],
    ofProducts: Array.from({ length: outputs }, (_, i) => [
      ...points.map((a) => a ** i),
      i === outputs - 1 ? 1 : 0,
    ]),
  };
}
