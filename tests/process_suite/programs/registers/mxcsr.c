#include "suite.h"

#include <xmmintrin.h>

int main(void)
{
    about("MXCSR: rounding, flushing, sticky flags");
    _mm_setcsr(_MM_MASK_MASK | _MM_ROUND_TOWARD_ZERO | _MM_FLUSH_ZERO_ON | _MM_EXCEPT_INEXACT);
    prepare_here();
    unsigned now = _mm_getcsr();
    check((now & _MM_ROUND_MASK) == _MM_ROUND_TOWARD_ZERO);
    check((now & _MM_FLUSH_ZERO_MASK) == _MM_FLUSH_ZERO_ON);
    check((now & _MM_EXCEPT_INEXACT) != 0 && (now & _MM_MASK_MASK) == _MM_MASK_MASK);
    return carried();
}
