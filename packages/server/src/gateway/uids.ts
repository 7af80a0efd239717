/**
 * Whether a text has the form of a UID (PS3.5, 9.1), of which leading zeros occur: it can be part of an address or the name of a
 * folder, and leads nowhere else.
 */
export const isUid = (text: string): boolean => /^[0-9][0-9.]{0,63}$/.test(text) && !text.includes('..');
