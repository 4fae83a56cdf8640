"""Training: photos with captions → a model folder that `dir:` loads.

    recipe        every choice of a run as one value, read from TOML; imports nothing heavy
    contrastive   the run itself: train(recipe, out)
    objectives    the losses, pure; what a run minimises, as a value
    components    features rebuilt from their principal components
    gradcache     gradients of a large batch from small ones
    samples       a table of photos and captions → batches, the same for the same seed
    long_captions tables with long and short captions
    models        what is trained: a new architecture or any model that can be loaded; and how it is written
    folder        what a run fills: whose it is, and how a finished model comes into it
    checkpoints   a run that was cut short goes on where it was
    world         several processes as one

Import from the modules: nothing is loaded here.
"""
