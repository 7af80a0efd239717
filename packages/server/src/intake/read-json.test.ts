import { describe, expect, it } from 'vitest';
import { parseJson } from './read-json.ts';

const parse = (text: string) => parseJson(Buffer.from(text), 'Send less.');

describe('parseJson()', () => {
  it('accepts 64 nested levels, and refuses 65 with the number and hint', () => {
    for (const [open, inner, close] of [
      ['[', '', ']'],
      ['{"a":', '1', '}'],
      ['[{"a":', '1', '}]'],
    ]) {
      const levels = open.startsWith('[{') ? 2 : 1;
      const nested = (depth: number) => open.repeat(depth) + inner + close.repeat(depth);
      expect(() => parse(nested(64 / levels)), open).not.toThrow();
      for (const depth of [65, 66, 1000, 200_000])
        expect(() => parse(nested(depth)), `${open} ${depth}`).toThrow(
          expect.objectContaining({
            code: 'BAD_REQUEST',
            message: 'The JSON body is nested more than 64 levels deep. Send less.',
          }),
        );
      // What does not end is refused for its depth, not walked through.
      expect(() => parse(open.repeat(65))).toThrow('nested more than 64 levels');
    }
  });

  it('counts levels, not brackets: beside each other, and in texts', () => {
    const wide = `[${Array(1000).fill('[[]]').join(',')}]`;
    expect(parse(wide)).toHaveLength(1000);
    const text = '['.repeat(500);
    expect(parse(JSON.stringify({ text, more: `\\"${text}` }))).toEqual({ text, more: `\\"${text}` });
    // A quote that is escaped does not end a text.
    expect(parse('["\\\\",["\\""]]')).toEqual(['\\', ['"']]);
  });

  it('refuses anything but JSON in UTF-8', () => {
    for (const text of ['', '{', '{"a":1}}', 'NaN', "{'a':1}"])
      expect(() => parse(text), text).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
    expect(() => parseJson(Buffer.from([0x22, 0xff, 0x22]), 'Send less.')).toThrow('not JSON in UTF-8');
  });
});
