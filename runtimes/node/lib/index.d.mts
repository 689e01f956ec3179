export * from './index.js';
import * as mitosis from './index.js';
export default mitosis;
