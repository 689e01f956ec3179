/* What programs load with dlopen(3), before or after they have crossed. */
static __thread int own = 7;
static int constructed;

__attribute__((constructor)) static void construct(void)
{
    constructed = 42;
}

int plugin_constructed(void)
{
    return constructed;
}

int *plugin_own(void)
{
    return &own;
}
