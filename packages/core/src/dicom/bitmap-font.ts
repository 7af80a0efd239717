/*
 * The letters of pictures: printable ASCII in cells of 5 × 9 pixels, the last two rows for descenders. A key picture is read on any
 * screen, so that it holds its text as pixels; the fonts of a machine would make it look different on each.
 */

export const glyphWidth = 5;
export const glyphHeight = 9;

/** Nine rows for each character from the space on, a row as one digit of base 32 whose highest bit is on the left. */
const rows =
  '000000000444440400aa0000000aavavaa004fke5u400op248j300cik8lid00448000000248884200842224800' +
  '04lel4000044v44000000006480000v0000000000cc00122488g00ehjlphe004c4444e00eh1248v00' +
  'v2421he0026aiv2200vgu11he0068guhhe00v12488800ehhehhe00ehhf12c000cc0cc0000cc0c4800248g84200' +
  '00v0v0000842124800eh1240400eh1dlle00ehhvhhh00uhhuhhu00ehggghe00sihhhis00vgguggv00vgguggg00' +
  'ehgnhhf00hhhvhhh00e44444e0072222ic00hikokih00ggggggv00hrllhhh00hhpljhh00ehhhhhe00uhhuggg00' +
  'ehhhlid00uhhukih00fgge11u00v44444400hhhhhhe00hhhhha400hhhllla00hha4ahh00hhha44400v1248gv00' +
  'e88888e00g88422100e22222e004ah0000000000000v0842000000' +
  '00e1fhf00ggmphhu0000egghe0011djhhf0000ehvge00698s8880000fhhhf1eggmphhh0040c444e002062222icggikoki00c44444e0000qllll00' +
  '00mphhh0000ehhhe0000uhhhugg00fhhhf1100mpggg0000fge1u0088s88960000hhhjd0000hhha40000hhlla00' +
  '00ha4ah0000hhhhf1e00v248v00244844200444444400844244800008l20000';

/** The rows of a character, each a number whose bit 4 is on the left; those of a question mark for others than printable ASCII. */
export function glyphRows(character: string): number[] {
  const code = character.charCodeAt(0);
  const index = code >= 32 && code < 127 ? code - 32 : 31;
  return Array.from({ length: glyphHeight }, (_, y) => Number.parseInt(rows[index * glyphHeight + y], 32));
}
