// Key tables of the groups &data and &pack: names, defaults, ranges and the manual's text of every
// key.
#include "hirl/data.h"

#define ROWS(keys) (int)(sizeof(keys) / sizeof *(keys))

static const hirl_key_t data_keys[] = {
    HIRL_ROW_TEXT(hirl_data_cfg_t, train, "''", NULL,
                  "Shards to train on: a file, a folder (all its *.h5 files, of one split) or a "
                  "pattern such as "
                  "'shards/train-*.h5'; '{a,b}' and '~' are understood."),
    HIRL_ROW_TEXT(hirl_data_cfg_t, val, "''", NULL,
                  "Shards of the samples to evaluate, written as data%train; empty: none."),
    HIRL_ROW_TEXT(hirl_data_cfg_t, access, "'mmap'", "mmap|pread",
                  "How samples are read: 'mmap' maps the shards (fastest), 'pread' reads them "
                  "(errors of the file system "
                  "are reported instead of ending the program; one open file a shard)."),
    HIRL_ROW_INT(hirl_data_cfg_t, n_threads, "0", 0, 1024, "threads",
                 "Threads that decode and augment, on each rank; 0: as many as the rank has CPUs."),
    HIRL_ROW_INT(hirl_data_cfg_t, n_ahead, "3", 1, 64, "batches",
                 "Batches that are prepared ahead of the trainer."),
    HIRL_ROW_INT(
        hirl_data_cfg_t, channels, "0", 0, 3, "channels",
        "Images are converted to this: 1 (grey) or 3 (colour); 0: as stored, if all are alike."),
    HIRL_ROW_BOOL(hirl_data_cfg_t, verify, ".false.",
                  "Compare each sample with its checksum when it is read; one that differs counts "
                  "as undecodable."),
    HIRL_ROW_TEXT(hirl_data_cfg_t, decode, "'exact'", "exact|scaled",
                  "How JPEGs are decoded for training. 'exact': the part that the views show, with "
                  "the pixels of the whole image. 'scaled': shrunk to 1/2, 1/4 or 1/8 in the "
                  "transform where all crops are still resized to something smaller; much faster "
                  "for large photographs, pixels differ slightly."),
    HIRL_ROW_TEXT(hirl_data_cfg_t, stage, "''", NULL,
                  "Folder on each node's own disk that shards are copied to before they are read, "
                  "such as the job's scratch folder; empty: none. Copies are compared with the "
                  "originals by checksum, shared by the ranks of a node, found again by later "
                  "runs, and not removed."),
    HIRL_ROW_INT(
        hirl_data_cfg_t, window, "0", 0, 1e12, "samples",
        "Training shuffles within windows of this many samples, taken from 16 stretches of "
        "the set, which slow disks read faster; 0: among all. The shards should have been "
        "packed with pack%shuffle then."),
    HIRL_ROW_BOOL(hirl_data_cfg_t, read_ahead, ".true.",
                  "Tell the system which samples come next, so that it reads them meanwhile; not "
                  "of videos, of which a clip takes a few frames."),
    HIRL_ROW_REAL(hirl_data_cfg_t, max_bad_fraction, "0.01", 0.0, 1.0, "",
                  "Share of undecodable samples that is tolerated; each is reported and replaced "
                  "by the next one."),
    HIRL_ROW_REAL_LIST(hirl_data_cfg_t, mean, "0.5", -1e3, 1e3, "",
                       "Subtracted from pixels in [0, 1]: one value, or one for each channel."),
    HIRL_ROW_REAL_LIST(hirl_data_cfg_t, std, "0.5", 1e-6, 1e3, "",
                       "Pixels are divided by this after the mean was subtracted: one value, or "
                       "one for each channel."),
};

const hirl_group_t hirl_data_group = {"data", "Where samples come from and how they are read.",
                                      data_keys, ROWS(data_keys), sizeof(hirl_data_cfg_t)};

static const hirl_key_t pack_keys[] = {
    HIRL_ROW_TEXT(
        hirl_pack_cfg_t, source, NULL, NULL,
        "What is packed: a folder of images (class/image.png, .jpg, .jpeg or .webp; classes may "
        "lie in "
        "folders of super-classes; names that begin with a dot are left out), the folder of an IDX "
        "or CIFAR data set, or its files themselves (the IDX file of images; CIFAR batches, also "
        "as a pattern); tar archives of such folders, not compressed, also as a pattern: their "
        "members are read where they lie, and the last of the same path counts."),
    HIRL_ROW_TEXT(
        hirl_pack_cfg_t, format, "'auto'",
        "auto|idx|cifar10|cifar100|folder|list|tar|frames|cub|cars|sop|inshop|voc07",
        "Kind of the source; 'auto' tells the first six by the usual names of files. "
        "'frames': videos, each a folder of numbered images "
        "(class/video/frame_00001.jpg; JPEG, PNG or WebP, all of one size). Frames follow "
        "the last numbers in their names, those of the same number their names; "
        "numbers may be missing, and images without one are left out. A sample is "
        "called by its folder, whose class is what pack%classes says. Frames stay byte "
        "for byte; a video with a damaged one is skipped. Training needs clip%frames. "
        "The last five are data sets as they are published: CUB-200-2011 (classes 0 to 99 "
        "are split 'train', 100 to 199 'val' or 'test'), Cars-196 (0 to 97, 98 to 195), "
        "Stanford Online Products ('train', 'val' or 'test'), In-shop ('train', 'query', "
        "'gallery') and VOC 2007 ('train', 'val', 'trainval', 'test'; its images have "
        "several classes each, which go to /target)."),
    HIRL_ROW_TEXT(hirl_pack_cfg_t, split, "'train'", NULL,
                  "Name of the split, and of its shards. In the folder of an IDX or CIFAR data set "
                  "'train' selects the "
                  "training files, 'val' and 'test' the others."),
    HIRL_ROW_TEXT_LIST(hirl_pack_cfg_t, list, "",
                       "Files that list what is packed, in their order: lines 'path label', split "
                       "at the last blank, or 'path' alone, as the first line of each file shows; "
                       "paths are relative to pack%source. Images without a label get -1."),
    HIRL_ROW_TEXT(
        hirl_pack_cfg_t, subset, "''", NULL,
        "File of the names to keep, one a line: a path (of list, folder or archive) or the "
        "name of a file, as in ImageNet's 1percent.txt; a label behind it is passed "
        "over. The numbers of classes stay those of the whole."),
    HIRL_ROW_TEXT(hirl_pack_cfg_t, labels, "''", NULL,
                  "Labels of images from comma-separated values (RFC 4180) with a header line, in "
                  "place of the source's own. An image is found by its path, the name of its file "
                  "or that without extension; labels are numbers, or names of classes, which are "
                  "numbered in the order of their bytes. Images without a row get -1."),
    HIRL_ROW_TEXT_LIST(hirl_pack_cfg_t, label_columns, "",
                       "Columns of pack%labels that hold the images and their labels: two names "
                       "of its header; by default the first two columns."),
    HIRL_ROW_TEXT(
        hirl_pack_cfg_t, classes, "'leaf'", "leaf|top|archive|none",
        "Which folder is an image's class. 'leaf': the one that it lies in, called by its "
        "path below pack%source ('animals/dog'), and the folders above are super-classes "
        "('animals'); images beside such folders are of class 'animals/.'. 'top': the "
        "first of its path, whatever is below, as torchvision's ImageFolder has it. "
        "'archive': the name of its tar archive without '.tar', as in ImageNet's "
        "n01440764.tar. "
        "'none': labels of any source are left out."),
    HIRL_ROW_INT(
        hirl_pack_cfg_t, max_side, "0", 0, 65500, "pixels",
        "Images whose pack%side is longer are decoded, made so small by antialiased bicubic "
        "interpolation, and encoded as JPEG (grey, or colour with 4:2:0 subsampling); all "
        "others, and with 0 all, stay byte for byte, but for pack%upright."),
    HIRL_ROW_TEXT(hirl_pack_cfg_t, side, "'longer'", "longer|shorter",
                  "Which side of an image pack%max_side is about. 'shorter' is what crops of "
                  "training need: the usual ImageNet is packed with 256 or more."),
    HIRL_ROW_INT(hirl_pack_cfg_t, quality, "90", 1, 100, "",
                 "JPEG quality of images that are encoded again."),
    HIRL_ROW_BOOL(hirl_pack_cfg_t, upright, ".true.",
                  "Turn JPEG images as their EXIF orientation says: without loss where their sides "
                  "are multiples of the blocks of the coding, else they are decoded and encoded "
                  "again. .false. keeps them as they are, which is what torchvision's ImageFolder "
                  "sees."),
    HIRL_ROW_TEXT(hirl_pack_cfg_t, output, NULL, NULL,
                  "Folder that the shards go to, as <split>-00000.h5 and so on."),
    HIRL_ROW_INT(hirl_pack_cfg_t, shard_mib, "1024", 1, 1048576, "MiB",
                 "Size of a shard's images at most. Each rank writes whole shards, so there should "
                 "be several a rank."),
    HIRL_ROW_INT(hirl_pack_cfg_t, n_holdout, "0", 0, 1e12, "samples",
                 "Samples moved, by a random choice that depends on the seed alone, to a split "
                 "called 'holdout'."),
    HIRL_ROW_INT(hirl_pack_cfg_t, seed, "0", 0, 9e15, "",
                 "Seed of the choice and of the order on disk."),
    HIRL_ROW_BOOL(hirl_pack_cfg_t, shuffle, ".false.",
                  "Store the samples in random order; training shuffles anyway, but reads from "
                  "disks go faster when "
                  "classes do not lie together."),
    HIRL_ROW_BOOL(hirl_pack_cfg_t, overwrite, ".false.",
                  "Replace shards of this split (and a 'holdout' taken from it) that are in the "
                  "output folder."),
};

const hirl_group_t hirl_pack_group = {"pack", "How shards are built from images.", pack_keys,
                                      ROWS(pack_keys), sizeof(hirl_pack_cfg_t)};
