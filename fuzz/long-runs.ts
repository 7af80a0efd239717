/**
 * Long runs of one kind of character at each place of a text: an expression or a loop that backtracks takes seconds
 * for one of them, although it is instant on what people write.
 */

export interface LongRuns {
  /** Texts of the format; each `…` is a place for a run. */
  readonly texts: readonly string[];
  /** Length of a run in characters; 40,000 unless the reader accepts less. */
  readonly length?: number;
}

/** What runs are made of: a character of each class, and words that an expression may match in several ways. */
export const runKinds: Readonly<Record<string, string>> = {
  digits: '7',
  letters: 'n',
  blanks: ' ',
  tabs: '\t',
  newlines: '\n',
  'carriage returns': '\r',
  minuses: '-',
  points: '.',
  commas: ',',
  semicolons: ';',
  colons: ':',
  'equals signs': '=',
  quotes: '"',
  backslashes: '\\',
  brackets: '(',
  'square brackets': '[',
  zeros: '\0',
  'letters of Latin-1': '\xe9',
  'numbers and blanks': '1 ',
  'words and blanks': 'nan ',
  'decimal points': '1.',
  vectors: '(1,0,0) ',
};

/**
 * Every text with a run of every kind at every place, the other places empty. Each run is followed by a character of
 * another kind, so that whatever can be matched in two ways is tried in all of them.
 */
export function* withLongRuns({ texts, length = 40_000 }: LongRuns): Generator<Uint8Array> {
  for (const text of texts) {
    const parts = text.split('…');
    for (let place = 1; place < parts.length; place++) {
      const [before, after] = [parts.slice(0, place).join(''), parts.slice(place).join('')];
      for (const piece of Object.values(runKinds)) {
        const run = piece.repeat(Math.ceil(length / piece.length));
        yield new Uint8Array(Buffer.from(`${before}${run}!${after}`, 'latin1'));
      }
    }
  }
}
