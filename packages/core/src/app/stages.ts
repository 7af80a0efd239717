/** What is done in a prediction, in this order; the name that progress and errors go by. */
export const stages = ['decode', 'preprocess', 'infer', 'postprocess', 'encode'] as const;
export type Stage = (typeof stages)[number];
