'use strict';

if (require('../../..').generation > 0) {
  throw new Error('this is a child');
}
